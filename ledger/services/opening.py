"""Open recorded events for a reader: which parts are readable *now*, and what stands in place of the others.

Order matters (I7, I9): the events were read before this is called; then the vault is asked; then the ledger's own
``shredded_keys``. An erasure that was acknowledged before the page began is therefore always seen, and a key that
vanishes from the vault while we look is already in ``shredded_keys`` when we get there.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from ledger.domain.encoding import decode_plaintext, encode_aad, leaf_of
from ledger.domain.events import DisclosedPart, OpenedEvent, OpenedPart, RecordedEvent, Redaction, RedactionReason, Role
from ledger.domain.merkle import hash_leaf
from ledger.ports import DataKey, KeyView, Shredding
from ledger.services.dependencies import Dependencies


@dataclass(frozen=True, slots=True)
class _Keys:
    views: Mapping[bytes, KeyView]
    shreddings: Mapping[bytes, Shredding]


SEALED_ROLES: Final = frozenset(Role) - {Role.SHREDDED}
"""Every role whose parts hold something to open."""


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
    if recording and disclosing:
        raise ValueError("what is opened for recording is never disclosed")
    wanted = SEALED_ROLES.intersection(roles)
    key_ids = {part.key_id for event in events for part in event.parts if part.role in wanted}
    if not key_ids:
        return [_OpenEvent(deps, event, _Keys({}, {}), wanted, disclosing=disclosing).opened() for event in events]
    views = deps.vault.look_up_keys(ledger_id, key_ids, recording=recording)
    keys = _Keys(views, deps.store.shreddings(ledger_id, key_ids))
    return [_OpenEvent(deps, event, keys, wanted, disclosing=disclosing).opened() for event in events]


class _OpenEvent:
    """Opens one event, part by part."""

    def __init__(
        self, deps: Dependencies, event: RecordedEvent, keys: _Keys, wanted: Collection[Role], *, disclosing: bool
    ) -> None:
        self._deps = deps
        self._event = event
        self._keys = keys
        self._wanted = wanted
        self._disclosing = disclosing
        self._disclosed: list[DisclosedPart] = []
        self._opened_keys: list[bytes] = []
        self._roles = [(part.role, part.key_id) for part in event.parts]
        self._redactions: list[Redaction] = []

    def opened(self) -> OpenedEvent:
        # Position, version, recorded-at and recorded-by are bound by the leaf alone, so the leaf comes first.
        genuine = self._leaf_matches()
        stream: str | None = None
        nonpersonal: dict[str, Any] | None = None
        people: dict[Role, list[OpenedPart]] = {Role.SUBJECT: [], Role.ACTOR: [], Role.FURTHER: []}
        for number, part in enumerate(self._event.parts):
            if part.role not in self._wanted:
                continue
            content = self._open_part(number, _pointer(part.role, len(people[Role.FURTHER])), genuine=genuine)
            members = None if isinstance(content, Redaction) else content
            if isinstance(content, Redaction):
                self._redactions.append(content)
            if members is not None and "stream" in members:
                stream = members["stream"]
            if part.role in people:
                people[part.role].append(self._person(part.key_id, members))
            elif part.role is Role.NONPERSONAL and members is not None:
                nonpersonal = members.get("data")
        if not self._redactions and not (genuine and self._has_content()):
            self._redactions.append(_redaction("", None, "unreadable"))
        return OpenedEvent(
            recorded=self._event,
            stream=stream,
            subject=next(iter(people[Role.SUBJECT]), None),
            actor=next(iter(people[Role.ACTOR]), None),
            further=tuple(people[Role.FURTHER]),
            nonpersonal=nonpersonal,
            redactions=tuple(self._redactions),
            opened_keys=tuple(dict.fromkeys(self._opened_keys)),
            shown_version=self._event.envelope.schema_version,
            disclosed=tuple(self._disclosed),
        )

    def _has_content(self) -> bool:
        """Whether there is a part to open. Every event was recorded with one: at the least its stream's name."""
        if any(part.role is not Role.SHREDDED for part in self._event.parts):
            return True
        self._alarm(None, "the event has no part that anything could be read from")
        return False

    def _leaf_matches(self) -> bool:
        try:
            genuine = hash_leaf(leaf_of(self._event)) == self._event.leaf_hash
        except (ValueError, OverflowError, struct.error):
            # A row that was altered by hand can hold what no leaf can: a category that is not ASCII, say.
            genuine = False
        if not genuine:
            self._alarm(None, "the event is not what its leaf says")
        return genuine

    def _person(self, key_id: bytes, members: Mapping[str, Any] | None) -> OpenedPart:
        view = self._keys.views.get(key_id)
        return OpenedPart(
            subject=members.get("subject") if members is not None else None,
            subject_ref=view.subject_ref if view is not None else None,
            purpose=view.purpose if view is not None else None,
            data=members.get("data") if members is not None else None,
            readable=members is not None,
        )

    def _open_part(self, number: int, pointer: str, *, genuine: bool) -> Mapping[str, Any] | Redaction:
        """The members of a part, or what stands in their place."""
        part = self._event.parts[number]
        view = self._keys.views.get(part.key_id)
        shredding = self._keys.shreddings.get(part.key_id)
        # I9: what the ledger says goes first, whatever the vault holds.
        if shredding is not None:
            return _redaction(pointer, view, "erased", shredding.at, shredding.erasure_id)
        if view is not None and view.status == "restricted":
            # Without the id of an erasure that is under way: its event must still be recorded under that id, which a
            # writer who knew it could take.
            return _redaction(pointer, view, "restricted", view.changed_at)
        if view is None or view.key is None:
            self._alarm(number, "the key is missing or damaged, and the ledger has no record that it was shredded")
            return _redaction(pointer, view, "unreadable")
        if not genuine:
            return _redaction(pointer, view, "unreadable")
        try:
            content = self._read_part(number, view.key)
        except ValueError:
            self._alarm(number, "the part is not authentic")
            return _redaction(pointer, view, "unreadable")
        if view.subject_ref is not None:
            self._opened_keys.append(part.key_id)
        return content

    def _read_part(self, number: int, key: DataKey) -> Mapping[str, Any]:
        sealed, aad = self._event.parts[number].sealed, encode_aad(self._event.envelope, self._roles, number)
        if not self._disclosing:
            return decode_plaintext(key.open(sealed, aad))
        plaintext, part_key = key.disclose(sealed, aad)
        content = decode_plaintext(plaintext)
        self._disclosed.append(DisclosedPart(number, sealed, part_key))
        return content

    def _alarm(self, part: int | None, what: str) -> None:
        self._deps.alarm(self._event.envelope.ledger_id, self._event.position, part, what)


def _redaction(
    pointer: str, view: KeyView | None, reason: RedactionReason, at: int | None = None, erasure_id: UUID | None = None
) -> Redaction:
    subject_ref = view.subject_ref if view is not None else None
    purpose = view.purpose if view is not None else None
    return Redaction(pointer, subject_ref, purpose, reason, at, erasure_id)


def _pointer(role: Role, further: int) -> str:
    """Where in the shown event the content of a part stands (RFC 6901)."""
    if role is Role.FURTHER:
        return f"/parts/{further}"
    return {
        Role.SUBJECT: "/data",
        Role.ACTOR: "/actor",
        Role.NONPERSONAL: "/nonpersonal",
        Role.STREAM_NAME: "/stream",
    }[role]
