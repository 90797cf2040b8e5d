"""Put a vault together from its settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keyvault.cache import UnwrapCache
from keyvault.database import make_engine
from keyvault.finality import Custody, shares_place
from keyvault.journal import journal_from_url
from keyvault.providers import provider_from_url
from keyvault.vault import Vault


def open_vault(
    url: str,
    provider_url: str,
    journal_url: str,
    clock: Callable[[], int],
    *,
    note_unwrap: Callable[[bool], None] = lambda remembered: None,
    copies_kept: int = 0,
    home: Path | None = None,
    journal_key: bytes | None = None,
) -> Vault:
    """The vault of ``AUDIT_LEDGER_KEYVAULT_URL``, ``AUDIT_LEDGER_KEK`` and ``AUDIT_LEDGER_JOURNAL``.

    ``clock`` gives microseconds since 1970 UTC; ``note_unwrap`` is told of each key that is needed whether it was
    remembered from shortly before; ``copies_kept``: for how many microseconds copies of a KEK are kept elsewhere after
    it was destroyed; ``home``: a folder that is backed up as a whole; ``journal_key``: what the journal's lines must
    verify under, 32 bytes. Connects to nothing yet:
    :meth:`~keyvault.vault.Vault.check` tells whether it works. Before the first use: :func:`keyvault.migrate.migrate`
    on ``vault.engine``, then ``initialise()``.
    """
    cache = UnwrapCache(note=note_unwrap)
    provider = provider_from_url(provider_url)
    custody = Custody(copies_kept, shares_place(url, provider, home))
    return Vault(make_engine(url), provider, journal_from_url(journal_url), clock, cache, custody, journal_key)
