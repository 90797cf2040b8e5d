"""When an erasure is final: no copy of its keys that the service knows of can be opened any more.

``erased_at`` says that nothing serves the data. Wrapped keys can still lie in backups, WAL and dead rows until the KEKs
they are wrapped under are gone: those of every epoch up to the newest that existed when the keys were shredded.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import Engine, make_url

from keyvault import database, epoch_store
from keyvault.epoch_store import EpochRow
from keyvault.providers import KeyProvider
from keyvault.values import DestroyedEpoch, Finality

DAY: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Custody:
    """What the operator declares of the KEKs, and what can be seen of them.

    ``copies_kept``: how long copies of a KEK are kept elsewhere after it was destroyed, in microseconds.
    ``shared_place``: KEKs and vault lie in one folder, so that a copy of it holds both.
    """

    copies_kept: int = 0
    shared_place: bool = False


class Erased(Protocol):
    """What of an erasure decides."""

    @property
    def done(self) -> bool: ...
    @property
    def erased_at(self) -> int | None: ...
    @property
    def epoch(self) -> int | None: ...


def decide(entry: Erased, rows: Sequence[EpochRow], living: Collection[int], custody: Custody, now: int) -> Finality:
    """Pure. ``rows``: every epoch; ``living``: those whose KEK the provider has, whatever the rows say.

    An erasure without keys waits for the same epochs as one with keys: its list of keys may have come from a vault that
    was restored, and to be final too late does no harm.
    """
    if not entry.done or entry.erased_at is None or entry.epoch is None:
        return Finality(None, "open")
    if custody.shared_place:
        return Finality(None, "shared-place")
    gone = {
        row.epoch: DestroyedEpoch(row.epoch, row.destroyed_at, row.gone_at)
        for row in rows
        if row.state == "destroyed" and row.destroyed_at is not None and row.gone_at is not None
    }
    needed = range(1, entry.epoch + 1)
    # A number without a row is no proof of anything: the KEK may well have existed.
    if not all(epoch in gone and epoch not in living for epoch in needed):
        return Finality(None, "epochs-alive")
    epochs = tuple(gone[epoch] for epoch in needed)
    keeper_done = max(epoch.gone_at for epoch in epochs)
    if keeper_done > now:
        return Finality(None, "keeper-waits", epochs)
    if keeper_done + custody.copies_kept > now:
        return Finality(None, "copies-kept", epochs)
    return Finality(max(keeper_done + custody.copies_kept, entry.erased_at), None, epochs)


def look_up(
    engine: Engine,
    entries: Sequence[Erased],
    provider: KeyProvider | None,
    custody: Custody,
    now: int,
) -> Sequence[Finality]:
    """The same for these erasures. With ``provider`` it is asked which KEKs there are; what is to be signed needs that.

    Raises :class:`~keyvault.errors.ProviderError` when it does not answer.
    """
    rows = database.read(engine, epoch_store.all_epochs)
    found = [decide(entry, rows, (), custody, now) for entry in entries]
    if provider is None or not any(one.since is not None for one in found):
        return found
    living = provider.epochs()
    return [decide(entry, rows, living, custody, now) for entry in entries]


def shares_place(url: str, provider: KeyProvider, home: Path | None) -> bool:
    """Whether a copy of one folder holds KEKs and vault: the one lies in the other, or both in ``home``."""
    place = provider.place
    path = make_url(url).database if make_url(url).get_backend_name() == "sqlite" else None
    if place is None or path is None:
        return False
    keks, vault = place.resolve(), Path(path).resolve().parent
    if keks == vault or keks in vault.parents or vault in keks.parents:
        return True
    return home is not None and all(home.resolve() in (folder, *folder.parents) for folder in (keks, vault))
