"""Key providers: where the KEKs live, never in the vault's database or its backups."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from keyvault.errors import ProviderError
from keyvault.providers.file import FileProvider


class KeyProvider(Protocol):
    """The keeper of one KEK for each epoch.

    May be called from several threads and processes at once. Raises :class:`ProviderError` when a KEK cannot be
    reached, works again by itself when it can, and never keeps a KEK in use after its keeper has lost it. Connects to
    nothing before the first call, and shows no PIN or credential in any error or repr.
    """

    @property
    def name(self) -> str:
        """What stands in ``epochs.provider``: the scheme of the setting."""

    @property
    def place(self) -> Path | None:
        """The folder that the KEKs lie in, where they are files; None for a keeper that is a service or a device of its
        own."""

    def create(self, epoch: int) -> None:
        """Make the KEK of this epoch, unless there is one: that one is kept. When this returns, it survives a crash."""

    def wrap(self, epoch: int, plaintext: bytes, aad: bytes) -> bytes:
        """Wrap ``plaintext`` under the KEK of this epoch, bound to ``aad``."""

    def unwrap(self, epoch: int, blob: bytes, aad: bytes) -> bytes:
        """Undo :meth:`wrap`. Raises :class:`~keyvault.errors.NotAuthenticError` when the blob is not authentic, and
        only while the KEK is there to say so."""

    def epochs(self) -> frozenset[int]:
        """The epochs whose KEK could be used now, or brought back into use: what is scheduled for deletion is not among
        them."""

    def destroy(self, epoch: int) -> int | None:
        """Destroy the KEK of this epoch for good. Doing it again changes nothing, an epoch without a KEK included.

        Gives the time (µs) at which its keeper says that no copy of the keeper's own is left, or None: now. When this
        returns, nothing unwraps under the epoch any more.
        """


def provider_from_url(url: str) -> KeyProvider:
    """The provider that a setting such as ``file:/var/lib/audit-ledger/kek`` names.

    Raises :class:`ProviderError` for a scheme that is not supported.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "file" and rest:
        return FileProvider(Path(rest))
    # Not the whole setting: other schemes carry PINs.
    raise ProviderError(f"the key provider setting has scheme {scheme!r}; supported is file:PATH (a folder)")
