"""The way from a name to its subject, and how it is cut.

Every subject has a link key. A row of the name index holds the name's hash, the link id (which commits to that key)
and, sealed under a key derived from it, the refs. The link key is wrapped twice: for the link id, which is the way from
the names, and for the ref, which is the way from there; no column of the one is a column of the other. So what leads
from a name to a ref is a key, which lives under the epochs as a DEK does: once it is gone, old copies of the vault lead
nowhere either, as soon as the KEKs that they need are destroyed.

:func:`unlink` cuts the way of somebody who was erased:

1. One transaction, with the subject held: the sealed refs go, and the link key from both of its rows. The row of the
   ref stays, empty: the mark that a crash here leaves.
2. Another one: the time, and the mark goes. Not the same transaction: PostgreSQL shows in every row which one wrote it,
   and name and subject must not have that in common.
3. The journal's line.

Name hash and link id stay, so that late writers are refused and the name can begin anew. Each step can be repeated.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine

from keyvault import database, erasure_store, link_store, mark_store, name_store, store
from keyvault.envelope import REF_SIZE, LinkKey, NameKind
from keyvault.errors import (
    BusyError,
    DamagedKeyError,
    KeysLiveError,
    NotAuthenticError,
    NotErasedError,
    UnknownSubjectError,
)
from keyvault.journal import Journal
from keyvault.keyring import Keyring
from keyvault.link_store import LinkRow
from keyvault.name_store import NameRow
from keyvault.scribe import write_line
from keyvault.values import StreamEntry

_STREAM_REFS: Final = 2 * REF_SIZE


class Named(NamedTuple):
    """The subject that a name leads to. As short-lived as its link key."""

    ref: bytes
    link: LinkKey


@dataclass(frozen=True, slots=True)
class NewSubject:
    """A subject on its way into the vault: its ref, its link key, and the two rows of that."""

    ref: bytes
    link: LinkKey
    rows: tuple[LinkRow, LinkRow]

    def name_row(self, ledger_id: UUID, name_hash: bytes) -> NameRow:
        """The row of a name that leads to it."""
        sealed = self.link.seal(NameKind.SUBJECT, ledger_id, name_hash, self.ref)
        return NameRow(name_hash, self.link.link_id, sealed, None)


Opened = Mapping[tuple[object, ...], LinkKey]
"""Link keys that one request has opened, by all of their rows but the ledger, which is one: names and streams of one
person share theirs."""


def open_links(keyring: Keyring, rows: Iterable[NameRow]) -> Opened:
    """What opens these rows. Raises :class:`DamagedKeyError` as :func:`subject_of` does."""
    links = {row.link[1:]: row.link for row in rows if row.link is not None and row.sealed is not None}
    return dict(zip(links, keyring.open_links(list(links.values())), strict=True))


def subject_of(keyring: Keyring, ledger_id: UUID, row: NameRow, links: Opened | None = None) -> Named | None:
    """What a name leads to; None: the way was cut. Raises :class:`DamagedKeyError` for a row that was altered or
    swapped, or whose link key was: never another subject."""
    opened = _opened(keyring, ledger_id, NameKind.SUBJECT, row, REF_SIZE, links)
    return None if opened is None else Named(*opened)


def stream_of(keyring: Keyring, ledger_id: UUID, row: NameRow, links: Opened | None = None) -> StreamEntry | None:
    """The same for the name of a stream."""
    if row.link_id is None and row.clear_ref is not None:
        return StreamEntry(row.clear_ref, None)
    opened = _opened(keyring, ledger_id, NameKind.STREAM, row, _STREAM_REFS, links)
    return None if opened is None else StreamEntry(opened[0][:REF_SIZE], opened[0][REF_SIZE:])


def stream_row(ledger_id: UUID, name_hash: bytes, entry: StreamEntry, owner: LinkKey | None) -> NameRow:
    """The row of a stream's name. ``owner``: the link key of its owner."""
    if entry.owner_ref is None or owner is None:
        return NameRow(name_hash, None, None, None, entry.ref)
    sealed = owner.seal(NameKind.STREAM, ledger_id, name_hash, entry.ref + entry.owner_ref)
    return NameRow(name_hash, owner.link_id, sealed, None)


def new_subject(keyring: Keyring, ledger_id: UUID, epoch: int) -> NewSubject:
    """A subject with a random ref and a link key, wrapped under an epoch that the caller holds."""
    ref = os.urandom(REF_SIZE)
    link, *rows = keyring.new_link(ledger_id, ref, epoch)
    return NewSubject(ref, link, (rows[0], rows[1]))


def insert_new_subjects(
    connection: Connection, keyring: Keyring, ledger_id: UUID, hashes: Collection[bytes], epoch: int, now: int
) -> Mapping[bytes, bytes]:
    """The refs of these names; new ones for those that nobody has put into the index in the meantime. A name whose way
    was cut in the meantime is absent."""
    proposed = {digest: new_subject(keyring, ledger_id, epoch) for digest in hashes}
    name_store.insert_names(connection, ledger_id, [proposed[one].name_row(ledger_id, one) for one in proposed])
    rows = name_store.names_by_hash(connection, ledger_id, hashes)
    # Who wins the race for a name is known only now, and only the winner makes the subject: one link key, never two.
    won = {digest: made for digest, made in proposed.items() if rows[digest].link_id == made.link.link_id}
    name_store.insert_subjects(connection, ledger_id, [made.ref for made in won.values()], now)
    link_store.insert_links(connection, [row for made in won.values() for row in made.rows])
    refs = {digest: made.ref for digest, made in won.items()}
    for digest in rows.keys() - won.keys():
        found = subject_of(keyring, ledger_id, rows[digest])
        if found is not None:
            refs[digest] = found.ref
    return refs


def adopt_streams(
    connection: Connection,
    keyring: Keyring,
    ledger_id: UUID,
    streams: Mapping[str, tuple[bytes, bytes | None]],
) -> int:
    """Give rows to the names of streams that have none. See :meth:`keyvault.guard.RestoreGuard.adopt_streams`."""
    ledger = keyring.open_ledger(store.secrets_of(connection, ledger_id))
    hashes = {ledger.stream_hash(name): entry for name, entry in streams.items()}
    known = name_store.streams_by_hash(connection, ledger_id, hashes)
    owners = {owner for _, owner in hashes.values() if owner is not None}
    links: dict[bytes, LinkKey] = {}
    for ref, row in link_store.links_of_subjects(connection, ledger_id, owners).items():
        with suppress(DamagedKeyError):
            links[ref] = keyring.open_link(row)
    rows = [
        stream_row(ledger_id, digest, StreamEntry(ref, owner), None if owner is None else links[owner])
        for digest, (ref, owner) in hashes.items()
        if digest not in known and (owner is None or owner in links)
    ]
    name_store.insert_streams(connection, ledger_id, rows)
    return len(rows)


def count_names(
    connection: Connection, keyring: Keyring, ledger_id: UUID, refs: Collection[bytes]
) -> Mapping[bytes, int | None]:
    """Ref → how many names lead to it; None: its link key is damaged, so nobody can tell."""
    link_ids: dict[bytes, bytes | None] = {}
    for ref, row in link_store.links_of_subjects(connection, ledger_id, refs).items():
        try:
            link_ids[ref] = keyring.open_link(row).link_id
        except DamagedKeyError:
            link_ids[ref] = None
    counted = name_store.count_names(connection, ledger_id, [one for one in link_ids.values() if one is not None])
    found: dict[bytes, int | None] = dict.fromkeys(refs, 0)
    found.update({ref: None if one is None else counted.get(one, 0) for ref, one in link_ids.items()})
    return found


def unlink(
    engine: Engine, keyring: Keyring, journal: Journal, ledger_id: UUID, ref: bytes, now: int, line_at: int
) -> int:
    """See ``KeyVault.unlink``. ``line_at``: the time of the journal line."""
    cut(engine, keyring, ledger_id, ref, now)
    fields = {"ledger_id": str(ledger_id), "subject_ref": ref.hex()}
    line = write_line(engine, keyring, journal, "unlink", fields, line_at)
    with database.writing(engine) as connection:
        mark_store.note_journal(connection, line)
    return database.read(engine, lambda connection: _unlinked_since(connection, ledger_id, ref))


def cut(engine: Engine, keyring: Keyring, ledger_id: UUID, ref: bytes, now: int) -> None:
    """Steps 1 and 2: without the journal's line, which may stand there already."""
    with database.writing(engine) as connection:
        _require_unlinkable(connection, ledger_id, ref)
        link_id = _cut(connection, keyring, ledger_id, ref)
    with database.writing(engine) as connection:
        name_store.mark_unlinked(connection, ledger_id, ref, now)
        link_store.delete_mark(connection, ledger_id, ref)
    if link_id is not None:
        keyring.forget_link(link_id, ref)
    database.scrub(engine)


def is_unlinked(connection: Connection, ledger_id: UUID, ref: bytes) -> bool:
    """Whether no name leads to this subject any more."""
    return name_store.unlinked_at(connection, ledger_id, ref) is not None or link_store.is_cut(
        connection, ledger_id, ref
    )


def _opened(
    keyring: Keyring, ledger_id: UUID, kind: NameKind, row: NameRow, size: int, links: Opened | None
) -> tuple[bytes, LinkKey] | None:
    if row.sealed is None and row.link is None:
        return None
    if row.sealed is None or row.link is None:
        # Cutting takes both, in one transaction.
        raise DamagedKeyError("a row of the name index has lost its refs or its link key, and not both")
    link = keyring.open_link(row.link) if links is None else links[row.link[1:]]
    try:
        refs = link.open(kind, ledger_id, row.name_hash, row.sealed)
    except NotAuthenticError as error:
        raise DamagedKeyError(f"a row of the name index does not open: {error}") from None
    if len(refs) != size:
        raise DamagedKeyError("a row of the name index holds something else than refs")
    return refs, link


def _require_unlinkable(connection: Connection, ledger_id: UUID, ref: bytes) -> None:
    """Holds the subject from here on: no erasure begins, and its names do not begin anew meanwhile."""
    row = name_store.lock_subject(connection, ledger_id, ref)
    if row is None:
        raise UnknownSubjectError("the vault knows no subject of this ref")
    if row.state == "erasing" or erasure_store.open_erasures_of(connection, ledger_id, [ref]):
        raise BusyError("an erasure of the subject is under way; try again in a moment")
    if row.state != "erased":
        raise NotErasedError("the subject is not erased: its name is in use, and cannot be forgotten")
    living = store.keys_of_subjects(connection, ledger_id, [ref])
    if living:
        raise KeysLiveError(
            f"{len(living)} keys of the subject live: what they open tells the name beside the ref. Erase those "
            "purposes too; then the name can be forgotten"
        )


def _cut(connection: Connection, keyring: Keyring, ledger_id: UUID, ref: bytes) -> bytes | None:
    """Step 1. Gives the link id, where there was something to cut."""
    row = link_store.links_of_subjects(connection, ledger_id, [ref]).get(ref)
    if row is not None:
        link_id = keyring.open_link(row).link_id
        name_store.cut_names(connection, ledger_id, link_id)
        link_store.cut_link(connection, ledger_id, ref, link_id)
        return link_id
    if not is_unlinked(connection, ledger_id, ref):
        # Names may still lead here, and from here nobody can find them: nothing may be signed about that.
        raise DamagedKeyError("the link key of a subject is missing from its row")
    return None


def _unlinked_since(connection: Connection, ledger_id: UUID, ref: bytes) -> int:
    """When the way was cut, or later, when the last key was gone: the name may have begun anew while one lived."""
    shredded = [fence.shredded_at for fence in store.fences_of_subjects(connection, ledger_id, [ref])]
    return max([name_store.unlinked_at(connection, ledger_id, ref) or 0, *shredded])
