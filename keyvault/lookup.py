"""What is known of keys and subjects now. Always from the database (I7)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy import Connection, Engine

from keyvault import database, epoch_store, linking, name_store, store
from keyvault.envelope import DataKey, WrapKind
from keyvault.erasure_store import decode_key_ids, open_erasures_of
from keyvault.errors import DamagedKeyError, ProviderError
from keyvault.keyring import Keyring
from keyvault.linking import Named
from keyvault.name_store import SubjectRow
from keyvault.store import KeyInContext, SecretRow
from keyvault.values import KeyView, StreamEntry, SubjectEntry, SubjectState


def look_up_keys(
    engine: Engine, keyring: Keyring, ledger_id: UUID, key_ids: Collection[bytes], *, recording: bool = False
) -> Mapping[bytes, KeyView]:
    """See ``KeyVault.look_up_keys``."""
    wanted = set(key_ids)
    if not wanted:
        return {}

    def look(connection: Connection) -> tuple[Sequence[KeyInContext], Mapping[bytes, KeyView]]:
        living = store.keys_in_context(connection, ledger_id, wanted)
        rest = wanted - {found.row.key_id for found in living}
        views = {} if not rest else _fenced(connection, ledger_id, rest)
        if rest - views.keys():
            views.update(_ledger_key(connection, keyring, ledger_id, rest))
        return living, views

    living, others = database.look(engine, look)
    return {**others, **_views_of(keyring, living, recording=recording)}


def subject(engine: Engine, keyring: Keyring, ledger_id: UUID, ref: bytes) -> SubjectEntry | None:
    """The subject of this ref."""

    def look(connection: Connection) -> SubjectEntry | None:
        row = name_store.subject(connection, ledger_id, ref)
        return None if row is None else _entries(connection, keyring, ledger_id, [row])[ref]

    return database.read(engine, look)


def find_subjects(
    engine: Engine, keyring: Keyring, ledger_id: UUID, names: Collection[str]
) -> Mapping[str, SubjectEntry]:
    """The subjects of these names, as far as they are in the index."""

    def look(connection: Connection) -> Mapping[str, SubjectEntry]:
        found = _behind(connection, keyring, ledger_id, names)
        refs = {name: named.ref for name, named in found.items() if named is not None}
        rows = name_store.subjects_by_ref(connection, ledger_id, refs.values())
        if rows.keys() != set(refs.values()):
            raise DamagedKeyError("the name index leads to a subject that is not there")
        entries = _entries(connection, keyring, ledger_id, rows.values())
        return {name: entries[ref] for name, ref in refs.items()}

    return database.read(engine, look)


def unlinked_among(engine: Engine, keyring: Keyring, ledger_id: UUID, names: Collection[str]) -> frozenset[str]:
    """The names from which nothing leads on any more, because their subjects were erased."""
    found = database.read(engine, lambda connection: _behind(connection, keyring, ledger_id, names))
    return frozenset(name for name, named in found.items() if named is None)


def find_streams(
    engine: Engine, keyring: Keyring, ledger_id: UUID, names: Collection[str]
) -> Mapping[str, StreamEntry]:
    """The streams of these names, as far as they are in the index and it leads on."""

    def look(connection: Connection) -> Mapping[str, StreamEntry]:
        ledger = keyring.open_ledger(store.secrets_of(connection, ledger_id))
        hashes = {name: ledger.stream_hash(name) for name in names}
        rows = name_store.streams_by_hash(connection, ledger_id, hashes.values())
        found = {name: linking.stream_of(keyring, ledger_id, rows[one]) for name, one in hashes.items() if one in rows}
        return {name: entry for name, entry in found.items() if entry is not None}

    return database.read(engine, look)


def view_of(keyring: Keyring, found: KeyInContext, *, recording: bool = False) -> KeyView:
    """Whether a key that lives may be used for reading now (with ``recording``: for an append), and the key if so."""
    withheld = _withheld(found, recording=recording)
    if withheld is not None:
        return withheld
    try:
        return _living(found, keyring.open_key(found.row))
    except DamagedKeyError:
        return _damaged(found)


def _views_of(keyring: Keyring, living: Sequence[KeyInContext], *, recording: bool = False) -> Mapping[bytes, KeyView]:
    """The same for the keys of a page, of which those that may be used are opened together."""
    views = {found.row.key_id: _withheld(found, recording=recording) for found in living}
    usable = [found for found in living if views[found.row.key_id] is None]
    try:
        keys = keyring.open_keys([found.row for found in usable])
    except DamagedKeyError:
        # One of them: none must hide the others.
        return {found.row.key_id: view_of(keyring, found, recording=recording) for found in living}
    opened = {found.row.key_id: _living(found, key) for found, key in zip(usable, keys, strict=True)}
    return opened | {key_id: view for key_id, view in views.items() if view is not None}


def _withheld(found: KeyInContext, *, recording: bool) -> KeyView | None:
    """What is known of a key that may not be used, or cannot be; None when only opening it can tell."""
    row, state, changed_at, epoch_state, open_erasure, erasure_keys, next_state = found
    if open_erasure is not None and any(key_id == row.key_id for key_id, _ in decode_key_ids(erasure_keys or "[]")):
        return KeyView("restricted", row.subject_ref, row.purpose, changed_at, open_erasure)
    # A subject that is being erased in part may have been restricted before, and will be again.
    restricted = state == "restricted" or (state == "erasing" and next_state == "restricted")
    if restricted and not recording:
        return KeyView("restricted", row.subject_ref, row.purpose, changed_at)
    # Under an epoch that was destroyed lies only what was given up as damaged: no provider can be asked about it.
    if state is None or epoch_state is None or epoch_state == "destroyed":
        return _damaged(found)
    return None


def _living(found: KeyInContext, key: DataKey) -> KeyView:
    return KeyView("living", found.row.subject_ref, found.row.purpose, found.changed_at, key=key)


def _damaged(found: KeyInContext) -> KeyView:
    return KeyView("damaged", found.row.subject_ref, found.row.purpose, found.changed_at)


def _fenced(connection: Connection, ledger_id: UUID, key_ids: Collection[bytes]) -> dict[bytes, KeyView]:
    return {
        row.key_id: KeyView("fenced", row.subject_ref, row.purpose, row.shredded_at, row.erasure_id)
        for row in store.fences_by_id(connection, ledger_id, key_ids)
    }


def _ledger_key(
    connection: Connection, keyring: Keyring, ledger_id: UUID, key_ids: Collection[bytes]
) -> Mapping[bytes, KeyView]:
    row = store.secrets_of(connection, ledger_id).get(WrapKind.LEDGER_DEK)
    if row is None or row.key_id is None or row.key_id not in key_ids:
        return {}
    key: DataKey | None
    try:
        key = keyring.open_ledger_key(row)
    except DamagedKeyError:
        return {row.key_id: KeyView("damaged", None, "")}
    except ProviderError:
        if not _is_given_up(connection, row):
            raise
        return {row.key_id: KeyView("damaged", None, "")}
    return {row.key_id: KeyView("living", None, "", key=key)}


def _is_given_up(connection: Connection, row: SecretRow) -> bool:
    """Whether the row as it is now, and not only as it was before a rewrap, is under an epoch that was destroyed."""
    now = store.secrets_of(connection, row.ledger_id).get(row.kind)
    destroyed = {one.epoch for one in epoch_store.all_epochs(connection) if one.destroyed_at is not None}
    return now is not None and now.epoch == row.epoch and row.epoch in destroyed


def _behind(
    connection: Connection, keyring: Keyring, ledger_id: UUID, names: Collection[str]
) -> Mapping[str, Named | None]:
    """Name → what it leads to, or None where that was cut; as far as they are in the index."""
    ledger = keyring.open_ledger(store.secrets_of(connection, ledger_id))
    hashes = {name: ledger.subject_hash(name) for name in names}
    rows = name_store.names_by_hash(connection, ledger_id, hashes.values())
    return {name: linking.subject_of(keyring, ledger_id, rows[one]) for name, one in hashes.items() if one in rows}


def _entries(
    connection: Connection, keyring: Keyring, ledger_id: UUID, rows: Collection[SubjectRow]
) -> Mapping[bytes, SubjectEntry]:
    refs = [row.ref for row in rows]
    key_ids: dict[bytes, dict[bytes, str]] = {ref: {} for ref in refs}
    for key in store.keys_of_subjects(connection, ledger_id, refs):
        key_ids[key.subject_ref][key.key_id] = key.purpose
    for fence in store.fences_of_subjects(connection, ledger_id, refs):
        key_ids[fence.subject_ref][fence.key_id] = fence.purpose
    names = linking.count_names(connection, keyring, ledger_id, refs)
    erasing = [row.ref for row in rows if row.state == "erasing"]
    under_way = open_erasures_of(connection, ledger_id, erasing)
    next_states: Mapping[bytes, SubjectState] = {ref: entry.next_state for ref, entry in under_way.items()}
    return {
        row.ref: SubjectEntry(
            row.ref,
            row.state,
            row.changed_at,
            names[row.ref],
            tuple(sorted(key_ids[row.ref].items())),
            next_states.get(row.ref, row.state),
        )
        for row in rows
    }
