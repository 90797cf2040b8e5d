"""Open recorded events for a reader: which parts are readable *now*, and what stands in place of the others.

Order matters (I7, I9): the events were read before this is called; then the vault is asked; then the ledger's own
``shredded_keys``. An erasure that was acknowledged before the page began is therefore always seen, and a key that
vanishes from the vault while we look is already in ``shredded_keys`` when we get there.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

import orjson

from ledger.domain.encoding import leaf_and_shared_aad
from ledger.domain.events import (
    DisclosedPart,
    JsonObject,
    OpenedEvent,
    OpenedPart,
    RecordedEvent,
    Redaction,
    Role,
    SealedPart,
)
from ledger.domain.merkle import hash_leaf
from ledger.ports import Alarms, KeyView, Shredding
from ledger.services.dependencies import Dependencies

SEALED_ROLES: Final = frozenset(Role) - {Role.SHREDDED}
"""Every role whose parts hold something to open."""

# A member of an enumeration takes longer to look up than a global name, and each part asks for several.
_SUBJECT: Final = Role.SUBJECT
_ACTOR: Final = Role.ACTOR
_FURTHER: Final = Role.FURTHER
_NONPERSONAL: Final = Role.NONPERSONAL
_SHREDDED: Final = Role.SHREDDED
_POINTERS: Final = {
    Role.SUBJECT: "/data",
    Role.ACTOR: "/actor",
    Role.NONPERSONAL: "/nonpersonal",
    Role.STREAM_NAME: "/stream",
}


def open_events(
    deps: Dependencies,
    ledger_id: UUID,
    events: Sequence[RecordedEvent],
    roles: Collection[Role] = SEALED_ROLES,
    *,
    recording: bool = False,
    disclosing: bool = False,
) -> list[OpenedEvent]:
    """Open a page of events, or of each only the parts in some roles. ``recording``: also what is restricted, for an
    append that needs a name from there; never to be shown. ``disclosing``: with the single-use keys of the parts that
    are opened, and of no others.

    Costs one look at the vault and one at ``shredded_keys``, whatever the page's length.
    """
    return list(open_each(deps, ledger_id, events, roles, recording=recording, disclosing=disclosing))


def open_each(
    deps: Dependencies,
    ledger_id: UUID,
    events: Sequence[RecordedEvent],
    roles: Collection[Role] = SEALED_ROLES,
    *,
    recording: bool = False,
    disclosing: bool = False,
) -> Iterator[OpenedEvent]:
    """The same, each event opened when it is its turn: for who takes all of them at once and keeps none.

    The keys are looked at before this returns, so a page that is not taken soon is one from before (I7).
    """
    if recording and disclosing:
        raise ValueError("what is opened for recording is never disclosed")
    wanted = SEALED_ROLES.intersection(roles)
    key_ids = {part.key_id for event in events for part in event.parts if part.role in wanted}
    views: Mapping[bytes, KeyView] = {}
    shreddings: Mapping[bytes, Shredding] = {}
    if key_ids:
        views = deps.vault.look_up_keys(ledger_id, key_ids, recording=recording)
        shreddings = deps.store.shreddings(ledger_id, key_ids)
    opening = _Opening(deps.alarm, wanted, views, shreddings, disclosing=disclosing)
    return map(opening.open, events)


class _Opening:
    """Opens the events of a page, part by part, with what is known of their keys."""

    def __init__(
        self,
        alarm: Alarms,
        wanted: Collection[Role],
        views: Mapping[bytes, KeyView],
        shreddings: Mapping[bytes, Shredding],
        *,
        disclosing: bool,
    ) -> None:
        self._alarm = alarm
        self._wanted = wanted
        self._views = views
        self._shreddings = shreddings
        self._disclosing = disclosing
        self._owners = {key_id: (view.subject_ref, view.purpose) for key_id, view in views.items()}
        # I9: what the ledger says goes first, whatever the vault holds.
        self._keys = {
            key_id: view.key
            for key_id, view in views.items()
            if view.key is not None and view.status != "restricted" and key_id not in shreddings
        }

    def open(self, event: RecordedEvent) -> OpenedEvent:
        """An event as it may be read now."""
        # Position, version, recorded-at and recorded-by are bound by the leaf alone, so the leaf comes first.
        shared_aad = self._checked_aad(event)
        stream: str | None = None
        nonpersonal: JsonObject | None = None
        subject: OpenedPart | None = None
        actor: OpenedPart | None = None
        further: list[OpenedPart] = []
        redactions: list[Redaction] = []
        opened_keys: list[bytes] = []
        disclosed: list[DisclosedPart] = []
        for number, part in enumerate(event.parts):
            role = part.role
            if role not in self._wanted:
                continue
            members = self._read(event, number, shared_aad, disclosed) if shared_aad is not None else None
            if members is None:
                pointer = f"/parts/{len(further)}" if role is _FURTHER else _POINTERS[role]
                redaction = self._redaction(part, event, number, pointer)
                redactions.append(redaction)
                person = OpenedPart(None, redaction.subject_ref, redaction.purpose, None, False)
            else:
                subject_ref, purpose = self._owners[part.key_id]
                if subject_ref is not None:
                    opened_keys.append(part.key_id)
                if "stream" in members:
                    stream = members["stream"]
                if role is _NONPERSONAL:
                    nonpersonal = members.get("data")
                    continue
                person = OpenedPart(members.get("subject"), subject_ref, purpose, members.get("data"), True)
            if role is _SUBJECT:
                subject = subject or person
            elif role is _ACTOR:
                actor = actor or person
            elif role is _FURTHER:
                further.append(person)
        if not redactions and (shared_aad is None or not self._has_content(event)):
            redactions.append(Redaction("", None, None, "unreadable", None, None))
        return OpenedEvent(
            event,
            stream,
            subject,
            actor,
            tuple(further),
            nonpersonal,
            tuple(redactions),
            tuple(opened_keys) if len(opened_keys) < 2 else tuple(dict.fromkeys(opened_keys)),
            "unregistered",
            event.envelope.schema_version,
            (),
            tuple(disclosed),
        )

    def _read(
        self, event: RecordedEvent, number: int, shared_aad: bytes, disclosed: list[DisclosedPart]
    ) -> JsonObject | None:
        """The members of a part; None where it may not or cannot be read."""
        part = event.parts[number]
        key = self._keys.get(part.key_id)
        if key is None:
            return None
        aad = shared_aad + bytes((number,))
        try:
            if not self._disclosing:
                return members_of(key.open(part.sealed, aad))
            plaintext, part_key = key.disclose(part.sealed, aad)
            members = members_of(plaintext)
        except ValueError:
            self._alarm_of(event, number, "the part is not authentic")
            return None
        disclosed.append(DisclosedPart(number, part.sealed, part_key))
        return members

    def _has_content(self, event: RecordedEvent) -> bool:
        """Whether there is a part to open. Every event was recorded with one: at the least its stream's name."""
        for part in event.parts:
            if part.role is not _SHREDDED:
                return True
        self._alarm_of(event, None, "the event has no part that anything could be read from")
        return False

    def _checked_aad(self, event: RecordedEvent) -> bytes | None:
        """What the AADs of an event's parts begin with; None for an event that is not what its leaf says."""
        try:
            leaf, shared_aad = leaf_and_shared_aad(event)
            if hash_leaf(leaf) == event.leaf_hash:
                return shared_aad
        except (ValueError, OverflowError, struct.error):
            # A row that was altered by hand can hold what no leaf can: a category that is not ASCII, say.
            pass
        self._alarm_of(event, None, "the event is not what its leaf says")
        return None

    def _redaction(self, part: SealedPart, event: RecordedEvent, number: int, pointer: str) -> Redaction:
        """What stands in place of a part that was not read. A missing key raises the alarm (I9)."""
        view = self._views.get(part.key_id)
        subject_ref, purpose = (view.subject_ref, view.purpose) if view is not None else (None, None)
        shredding = self._shreddings.get(part.key_id)
        if shredding is not None:
            return Redaction(pointer, subject_ref, purpose, "erased", shredding.at, shredding.erasure_id)
        if view is not None and view.status == "restricted":
            # Without the id of an erasure that is under way: its event must still be recorded under that id, which a
            # writer who knew it could take.
            return Redaction(pointer, subject_ref, purpose, "restricted", view.changed_at, None)
        if view is None or view.key is None:
            what = "the key is missing or damaged, and the ledger has no record that it was shredded"
            self._alarm_of(event, number, what)
        return Redaction(pointer, subject_ref, purpose, "unreadable", None, None)

    def _alarm_of(self, event: RecordedEvent, part: int | None, what: str) -> None:
        self._alarm(event.envelope.ledger_id, event.position, part, what)


def members_of(plaintext: bytes) -> JsonObject:
    """The members of a part, as ``decode_plaintext`` gives them, several times as fast.

    Raises ``ValueError`` for what is no JSON object.
    """
    members = orjson.loads(plaintext)
    if not isinstance(members, dict):
        raise ValueError("the plaintext of a part is not a JSON object")
    return members
