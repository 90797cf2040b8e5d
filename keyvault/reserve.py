"""Names to refs and keys for one append; what is missing is minted.

A mint takes its locks in one order (epoch, names, subjects, streams, keys; sorted within each), so that no two of them
wait for each other. A name or stream whose owner turns out to be another than the locks were taken for starts it over.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from keyvault import database, erasure_store, linking, mark_store, name_store, standing_store, store
from keyvault.envelope import REF_SIZE, LinkKey, WrapKind
from keyvault.epochs import held_epoch
from keyvault.errors import DamagedKeyError, VaultUnavailableError
from keyvault.keyring import Keyring, LedgerKeys
from keyvault.linking import Named
from keyvault.store import KeyRow, SecretRow
from keyvault.values import ErasureEntry, Refusal, Reservation, StreamEntry, SubjectState, VaultMark

# A SubjectErased event has at most 64 parts, and one of each shredded key must fit.
MOST_PURPOSES: Final = 60
_ATTEMPTS: Final = 5

Pair = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: stream → the owner it would get, and (subject, purpose) pairs."""

    streams: Mapping[str, str | None]
    keys: Collection[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Survey:
    """What of a request is there, what is refused, and what is missing. ``unlinked``, ``unlinked_streams``: names of
    people who were erased, from which nothing leads on any more. ``secrets``: the ledger's own, as they are now."""

    streams: Mapping[str, StreamEntry]
    subjects: Mapping[str, Named]
    unlinked: frozenset[str]
    unlinked_streams: frozenset[str]
    keys: Mapping[Pair, KeyRow]
    refused: Mapping[Pair, Refusal]
    missing_subjects: frozenset[str]
    missing_streams: frozenset[str]
    missing_keys: frozenset[Pair]
    secrets: Mapping[WrapKind, SecretRow]
    mark: VaultMark

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not (self.missing_subjects or self.missing_streams or self.missing_keys)


def reserve(
    engine: Engine, keyring: Keyring, clock: Callable[[], int], ledger_id: UUID, request: Request, *, mint: bool
) -> Reservation:
    """See ``KeyVault.reserve``. Writes nothing when nothing is missing."""
    ledger, survey = database.look(engine, lambda connection: _look(connection, keyring, ledger_id, request))
    for _ in range(_ATTEMPTS):
        if survey.complete or not mint:
            return _reservation(keyring, ledger, survey)
        with database.writing(engine) as connection:
            survey = _mint(connection, keyring, clock(), ledger_id, ledger, request, survey)
    if survey.complete:
        return _reservation(keyring, ledger, survey)
    raise VaultUnavailableError("others keep reserving the same names; ask again")


def _look(connection: Connection, keyring: Keyring, ledger_id: UUID, request: Request) -> tuple[LedgerKeys, Survey]:
    """What is there now. Each of the statements stands alone and sees what was committed before it.

    The names are hashed under the name key that the ledger had a moment ago. The survey says whether the vault has it
    still, in the very same row; else it all begins again with what it has.
    """
    ledger = keyring.recent_ledger(ledger_id) or keyring.open_ledger(store.secrets_of(connection, ledger_id))
    while True:
        survey = _survey(connection, keyring, ledger_id, ledger, request)
        if ledger.rows == (survey.secrets.get(WrapKind.LEDGER_DEK), survey.secrets.get(WrapKind.NAME_KEY)):
            return ledger, survey
        ledger = keyring.open_ledger(survey.secrets)


def _reservation(keyring: Keyring, ledger: LedgerKeys, survey: Survey) -> Reservation:
    return Reservation(
        complete=survey.complete,
        streams=survey.streams,
        subjects={name: named.ref for name, named in survey.subjects.items()},
        unlinked=survey.unlinked,
        unlinked_streams=survey.unlinked_streams,
        keys=dict(zip(survey.keys, keyring.open_keys(list(survey.keys.values())), strict=True)),
        refused=survey.refused,
        ledger_key=ledger.data_key,
        mark=survey.mark,
    )


def _survey(connection: Connection, keyring: Keyring, ledger_id: UUID, ledger: LedgerKeys, request: Request) -> Survey:
    subject_hashes = {name: ledger.subject_hash(name) for name in _subjects_in(request)}
    stream_hashes = {name: ledger.stream_hash(name) for name in request.streams}
    name_rows, stream_rows = name_store.index_rows(
        connection, ledger_id, subject_hashes.values(), stream_hashes.values()
    )
    links = linking.open_links(keyring, [*name_rows.values(), *stream_rows.values()])
    subjects = {
        name: linking.subject_of(keyring, ledger_id, name_rows[digest], links)
        for name, digest in subject_hashes.items()
        if digest in name_rows
    }
    found = {
        name: linking.stream_of(keyring, ledger_id, stream_rows[digest], links)
        for name, digest in stream_hashes.items()
        if digest in stream_rows
    }
    known = {name: named for name, named in subjects.items() if named is not None}
    unlinked = frozenset(subjects.keys() - known.keys())
    streams = {name: entry for name, entry in found.items() if entry is not None}
    owners = {name: owner for name, owner in request.streams.items() if name not in found}

    needed = {name for name, _ in request.keys} | {owner for owner in owners.values() if owner is not None}
    owning = {entry.owner_ref for entry in streams.values() if entry.owner_ref is not None}
    refs = owning | {named.ref for named in known.values()}
    # Names lead to refs in one statement, states are read in the next: what was erased in between shows as erased.
    standing = standing_store.standing_of(connection, ledger_id, refs)
    states = dict(standing.states)
    if states.keys() != refs:
        raise DamagedKeyError("the name index leads to a subject that is not there")

    wanted = {(known[name].ref, purpose) for name, purpose in request.keys if name in known}
    wanted |= {(known[owner].ref, "") for owner in owners.values() if owner is not None and owner in known}
    wanted |= {(ref, "") for ref in owning}

    erasing = {ref for ref, state in states.items() if state == "erasing"}
    under_way = erasure_store.open_erasures_of(connection, ledger_id, erasing)
    for ref in erasing:
        states[ref] = _outcome(connection, ledger_id, ref, under_way.get(ref))
    doomed = {(ref, purpose) for ref, entry in under_way.items() for _, purpose in entry.key_ids}

    living = {(row.subject_ref, row.purpose): row for row in standing.keys}
    lacking = wanted - living.keys()
    fences = store.fences_of_subjects(connection, ledger_id, {ref for ref, _ in lacking})
    fenced = {(row.subject_ref, row.purpose) for row in fences} | doomed
    refused = {pair: why for pair in lacking if (why := _refusal(states[pair[0]], pair in fenced)) is not None}
    refused |= dict.fromkeys(_excess(living.keys() | fenced, lacking - refused.keys()), "full")
    missing_streams = set()
    for name, owner in owners.items():
        if owner in unlinked:
            continue
        pair = (known[owner].ref, "") if owner is not None and owner in known else None
        # No event can be recorded in a stream whose owner gets no key, so it is not made either.
        why = None if pair is None else (_refusal(states[pair[0]], pair in fenced) or refused.get(pair))
        if pair is None or why is None:
            missing_streams.add(name)
        else:
            refused[pair] = why
    return Survey(
        streams=streams,
        subjects=known,
        unlinked=unlinked,
        unlinked_streams=frozenset(found.keys() - streams.keys()),
        keys={pair: row for pair, row in living.items() if pair in wanted},
        refused=refused,
        missing_subjects=frozenset(needed - known.keys() - unlinked),
        missing_streams=frozenset(missing_streams),
        missing_keys=frozenset(lacking - refused.keys()),
        secrets=standing.secrets,
        mark=standing.mark,
    )


def _subjects_in(request: Request) -> set[str]:
    """The names of subjects in a request, as owners or by themselves."""
    return {owner for owner in request.streams.values() if owner is not None} | {name for name, _ in request.keys}


def _outcome(connection: Connection, ledger_id: UUID, ref: bytes, under_way: ErasureEntry | None) -> SubjectState:
    """The state that decides for a subject whose row says ``erasing``.

    An erasure of everything refuses from its first step on: its outcome is certain. One of some purposes lets the
    others wait for its end.
    """
    if under_way is not None:
        return "erased" if under_way.next_state == "erased" else "erasing"
    # It ended between two statements; the row says by now how.
    row = name_store.subject(connection, ledger_id, ref)
    return "erasing" if row is None else row.state


def _refusal(state: SubjectState, fenced: bool) -> Refusal | None:
    """Why no key may be minted (I8); None: it may. A restricted subject can still be appended to."""
    if fenced or state == "erased":
        return "erased"
    return "erasing" if state == "erasing" else None


def _excess(used: Collection[Pair], new: Collection[Pair]) -> set[Pair]:
    """Those of the new pairs whose subjects would have more purposes than one ``SubjectErased`` can name."""
    growing = {ref for ref, _ in new}
    purposes: dict[bytes, set[str]] = {ref: set() for ref in growing}
    for ref, purpose in itertools.chain(used, new):
        if ref in growing:
            purposes[ref].add(purpose)
    return {pair for pair in new if len(purposes[pair[0]]) > MOST_PURPOSES}


def _mint(
    connection: Connection,
    keyring: Keyring,
    now: int,
    ledger_id: UUID,
    ledger: LedgerKeys,
    request: Request,
    stale: Survey,
) -> Survey:
    """Make what is missing, in one write transaction; gives what is there then."""
    epoch = held_epoch(connection)
    hashes = {name: ledger.subject_hash(name) for name in stale.missing_subjects}
    new_refs = linking.insert_new_subjects(connection, keyring, ledger_id, hashes.values(), epoch, now)
    refs = {name: named.ref for name, named in stale.subjects.items()}
    refs |= {name: new_refs[digest] for name, digest in hashes.items() if digest in new_refs}
    locked = _refs_to_lock(request, stale, refs)
    name_store.lock_subjects(connection, ledger_id, locked)
    # I8: read again under the locks; from here no erasure can begin for any of them until the keys are committed.
    survey = _survey(connection, keyring, ledger_id, ledger, request)
    refs = {name: named.ref for name, named in survey.subjects.items()}
    if survey.missing_subjects or not _refs_to_lock(request, survey, refs) <= locked:
        return survey
    rows = []
    for name in survey.missing_streams:
        owner = survey.subjects[request.streams[name] or ""] if request.streams[name] is not None else None
        entry = StreamEntry(os.urandom(REF_SIZE), None if owner is None else owner.ref)
        link: LinkKey | None = None if owner is None else owner.link
        rows.append(linking.stream_row(ledger_id, ledger.stream_hash(name), entry, link))
    name_store.insert_streams(connection, ledger_id, rows)
    keys = [keyring.new_key(ledger_id, ref, purpose, epoch) for ref, purpose in survey.missing_keys]
    store.insert_keys(connection, keys, now)
    mark_store.count_mint(connection, ledger_id)
    # Once more: whoever lost a race for a stream or key goes on with the winner's.
    return _survey(connection, keyring, ledger_id, ledger, request)


def _refs_to_lock(request: Request, survey: Survey, subjects: Mapping[str, bytes]) -> set[bytes]:
    """The subjects for which a key or a stream is to be made. Not the others: a busy actor's row stays free."""
    refs = {ref for ref, _ in survey.missing_keys}
    owners = {request.streams[name] for name in survey.missing_streams}
    names = survey.missing_subjects | {owner for owner in owners if owner is not None}
    # One that leads nowhere was unlinked in the meantime.
    return refs | {subjects[name] for name in names if name in subjects}
