"""Opened events, checked without a ledger: what an answer shows is compared with what leaf and sealed parts say.

1. The leaf stands in the tree of a checkpoint, at its own position.
2. Each part that came along is the one whose hash the leaf has, and opens with the key beside it.
3. Every member of the event that leaf and opened parts can tell is computed from these alone, and is what is shown.

What they cannot tell (``UNPROVEN``) is looked at only for its form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, get_args

from ledger.domain.checkpoints import PROOF_HASHES, Checkpoint, parse_hash
from ledger.domain.events import JsonObject, RedactionReason, Role, SchemaStatus
from ledger.domain.ids import format_ref, parse_ref, parse_uuid
from ledger.domain.leaves import Leaf, parse_leaf
from ledger.domain.merkle import hash_leaf, verify_inclusion
from ledger.domain.notes import from_base64
from ledger.domain.strict_json import parse_spelled_json, same_json
from ledger.domain.times import format_time, parse_time
from ledger.errors import IntegrityError, LedgerError, MalformedError

UNPROVEN: Final = (
    "subject_ref",
    "purpose",
    "schema_status",
    "reason, at and erasure_id of redactions",
)
"""Members of an event that neither its leaf nor its parts tell: the service's word alone, wherever they stand in it."""

PROOF_MEMBERS: Final = frozenset({"index", "hashes", "leaf", "parts"})
PART_MEMBERS: Final = frozenset({"part", "sealed", "key"})

OpenPart = Callable[[bytes, bytes, bytes], bytes]
"""Called with (single-use key, sealed part, AAD); gives the plaintext. Raises ``ValueError``."""

_CONTENT: Final[Mapping[str, type]] = {"subject": str, "stream": str, "data": dict}
_ONCE: Final = (Role.SUBJECT, Role.ACTOR, Role.NONPERSONAL, Role.STREAM_NAME)
_REDACTION: Final = frozenset({"pointer", "subject_ref", "purpose", "reason", "at", "erasure_id"})
_PURPOSE_CHARACTERS: Final = 64


class OpenedError(IntegrityError):
    """What is shown is not proven to be what was recorded. The message repeats nothing of what is shown."""


@dataclass(frozen=True, slots=True)
class ProvenEvent:
    """``members``: all that is proven of an event, as the API shows it, without ``UNPROVEN``. ``hidden``: how many of
    its parts did not come along, of which nothing can be told but that they were recorded."""

    leaf: Leaf
    members: JsonObject
    opened: int
    hidden: int


def verify_opened(shown: Any, checkpoint: Checkpoint, open_part: OpenPart) -> ProvenEvent:
    """Check one event of an opened answer. ``shown``: of ``parse_spelled_json``. ``checkpoint``: verified. Raises
    ``OpenedError``."""
    try:
        return _verify(shown, checkpoint, open_part)
    except OpenedError:
        raise
    except LedgerError as error:
        raise OpenedError(error.detail) from None
    except (ValueError, RecursionError):
        raise OpenedError("it holds something that no answer of the service holds") from None


def _verify(shown: Any, checkpoint: Checkpoint, open_part: OpenPart) -> ProvenEvent:
    event = dict(members(shown, None, "the event"))
    proof = event.pop("proof", None)
    if isinstance(proof, dict) and proof.keys() == {"index", "hashes"}:
        raise OpenedError('only its place is proven, not what it says: ask with "proof": "opened"')
    proof = members(proof, PROOF_MEMBERS, "its proof")
    leaf = _placed_leaf(proof, checkpoint)
    contents = _open_parts(proof["parts"], leaf, open_part)
    proven = proven_members(leaf, contents)
    _compare(event, proven)
    opened = len(contents)
    hidden = sum(part.role is not Role.SHREDDED for part in leaf.parts) - opened
    return ProvenEvent(leaf, proven, opened, hidden)


def _placed_leaf(proof: JsonObject, checkpoint: Checkpoint) -> Leaf:
    """Step 1."""
    if proof["leaf"] is None:
        raise OpenedError("the service had no leaf for it: its row was altered")
    raw = from_base64(text_of(proof["leaf"], "its leaf"))
    leaf = parse_leaf(raw)
    if type(proof["index"]) is not int or proof["index"] != leaf.position:
        raise OpenedError("its proof is of another position than its leaf says")
    hashes = hashes_of(proof["hashes"])
    root = checkpoint.root
    verify_inclusion(index=leaf.position, size=checkpoint.size, leaf_hash=hash_leaf(raw), proof=hashes, root=root)
    return leaf


def _open_parts(shown: Any, leaf: Leaf, open_part: OpenPart) -> Mapping[int, JsonObject]:
    """Step 2: part number → what the part says."""
    if not isinstance(shown, list):
        raise OpenedError("its parts are not a list")
    contents: dict[int, JsonObject] = {}
    for one in shown:
        given = members(one, PART_MEMBERS, "one of its parts")
        number = given["part"]
        if type(number) is not int or not max(contents, default=-1) < number < len(leaf.parts):
            raise OpenedError("its parts are not numbered as those of its leaf, in order")
        part = leaf.parts[number]
        sealed = from_base64(text_of(given["sealed"], "a sealed part"))
        if part.role is Role.SHREDDED or sha256(sealed).digest() != part.sealed_hash:
            raise OpenedError(f"part {number} is not the one that was recorded")
        key = from_base64(text_of(given["key"], "a key"))
        try:
            plaintext = open_part(key, sealed, leaf.aad(number))
        except ValueError:
            raise OpenedError(f"part {number} does not open with the key beside it") from None
        contents[number] = _content(plaintext, number)
    return contents


def _content(plaintext: bytes, number: int) -> JsonObject:
    try:
        # Strictly: a text that two readers could understand in two ways proves nothing.
        content = parse_spelled_json(plaintext)
    except MalformedError:
        content = None
    if not isinstance(content, dict) or not all(
        name in _CONTENT and isinstance(value, _CONTENT[name]) for name, value in content.items()
    ):
        raise OpenedError(f"part {number} opens to something that the service does not seal")
    return content


def proven_members(leaf: Leaf, contents: Mapping[int, JsonObject]) -> JsonObject:
    """Step 3: the event as leaf and opened parts tell it, without ``UNPROVEN``. Raises ``OpenedError`` for a leaf that
    no event of the service has."""
    roles = [part.role for part in leaf.parts]
    if any(roles.count(role) > 1 for role in _ONCE):
        raise OpenedError("its leaf has two parts of a role that an event has once")
    envelope = leaf.envelope
    streams = {content["stream"] for content in contents.values() if "stream" in content}
    if len(streams) > 1:
        raise OpenedError("its parts name different streams")

    def content_of(role: Role) -> JsonObject:
        return contents.get(roles.index(role), {}) if role in roles else {}

    def person(number: int) -> JsonObject:
        content = contents.get(number)
        # Somebody without data took part all the same: {} where the part is opened, null where it is hidden.
        data = None if content is None else content.get("data", {})
        return {"subject": (content or {}).get("subject"), "data": data}

    return {
        "position": leaf.position,
        "id": str(envelope.event_id),
        "type": envelope.event_type,
        "schema_version": envelope.schema_version,
        "stream": next(iter(streams), None),
        "stream_ref": format_ref("str", envelope.stream_ref),
        "stream_version": leaf.stream_version,
        "category": envelope.category,
        "recorded_at": format_time(leaf.recorded_at),
        "occurred_at": None if envelope.occurred_at is None else format_time(envelope.occurred_at),
        "recorded_by": str(leaf.recorded_by),
        "correlation_id": None if envelope.correlation_id is None else str(envelope.correlation_id),
        "causation_id": None if envelope.causation_id is None else str(envelope.causation_id),
        "subject": content_of(Role.SUBJECT).get("subject"),
        "data": content_of(Role.SUBJECT).get("data"),
        "actor": person(roles.index(Role.ACTOR)) if Role.ACTOR in roles else None,
        "parts": [person(number) for number, role in enumerate(roles) if role is Role.FURTHER],
        "nonpersonal": content_of(Role.NONPERSONAL).get("data"),
        "redactions": [{"pointer": pointer} for pointer in _hidden_pointers(roles, contents)],
        # An opened answer shows events as they were recorded.
        "shown_version": envelope.schema_version,
    }


def _hidden_pointers(roles: Sequence[Role], contents: Mapping[int, JsonObject]) -> list[str]:
    """Where in the event the content of each part stands that did not come along."""
    pointers, further = [], 0
    for number, role in enumerate(roles):
        pointer = {
            Role.SUBJECT: "/data",
            Role.ACTOR: "/actor",
            Role.FURTHER: f"/parts/{further}",
            Role.NONPERSONAL: "/nonpersonal",
            Role.STREAM_NAME: "/stream",
        }.get(role)
        further += role is Role.FURTHER
        if pointer is not None and number not in contents:
            pointers.append(pointer)
    return pointers


def _compare(event: JsonObject, proven: JsonObject) -> None:
    """Nothing is missing, nothing is added, and what can be proven is the same to the last digit."""
    shown, form_holds = _without_unproven(event)
    if shown.keys() != proven.keys():
        raise OpenedError("it has other members than an event of an opened answer has")
    for name, value in proven.items():
        if not same_json(shown[name], value):
            raise OpenedError(f"its {name} is not what was recorded")
    if not form_holds:
        raise OpenedError("one of the members that are not proven has not even the form that it must have")


def _without_unproven(event: JsonObject) -> tuple[JsonObject, bool]:
    """The event without what nothing proves, and whether that has the form that it must have."""
    unproven: list[bool] = []
    shown = dict(event)

    def drop(holder: Any, **forms: Callable[[Any], bool]) -> Any:
        if not isinstance(holder, dict) or not forms.keys() <= holder.keys():
            raise OpenedError("it has other members than an event of an opened answer has")
        unproven.extend(holds(holder[name]) for name, holds in forms.items())
        return {name: value for name, value in holder.items() if name not in forms}

    shown = drop(shown, subject_ref=_is_subject_ref, purpose=_is_purpose, schema_status=_is_status)
    if isinstance(shown.get("actor"), dict):
        shown["actor"] = drop(shown["actor"], subject_ref=_is_subject_ref)
    if isinstance(shown.get("parts"), list):
        shown["parts"] = [drop(part, subject_ref=_is_subject_ref, purpose=_is_purpose) for part in shown["parts"]]
    if isinstance(shown.get("redactions"), list):
        shown["redactions"] = [
            drop(
                members(redaction, _REDACTION, "a redaction"),
                subject_ref=_is_subject_ref,
                purpose=_is_purpose,
                reason=_is_reason,
                at=_is_time,
                erasure_id=_is_id,
            )
            for redaction in shown["redactions"]
        ]
    return shown, all(unproven)


def _is_subject_ref(value: Any) -> bool:
    return value is None or parse_ref("sub", value) is not None


def _is_purpose(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= _PURPOSE_CHARACTERS and value.isprintable())


def _is_status(value: Any) -> bool:
    return value in get_args(SchemaStatus)


def _is_reason(value: Any) -> bool:
    return value in get_args(RedactionReason)


def _is_time(value: Any) -> bool:
    return value is None or parse_time(value) is not None


def _is_id(value: Any) -> bool:
    return value is None or parse_uuid(value) is not None


def members(value: Any, names: frozenset[str] | None, what: str) -> JsonObject:
    """A JSON object with exactly these members (None: any). Raises ``OpenedError``."""
    if not isinstance(value, dict) or (names is not None and value.keys() != names):
        expected = "" if names is None else f" with the members {', '.join(sorted(names))} and no others"
        raise OpenedError(f"{what} is not an object{expected}")
    return value


def text_of(value: Any, what: str) -> str:
    """A JSON string. Raises ``OpenedError``."""
    if not isinstance(value, str):
        raise OpenedError(f"{what} is not a string")
    return value


def hashes_of(value: Any) -> list[bytes]:
    """The hashes of a proof. Raises ``OpenedError`` or ``NoteError``."""
    if not isinstance(value, list) or len(value) > PROOF_HASHES:
        raise OpenedError("a proof is not a list of hashes")
    return [parse_hash(text_of(one, "a hash")) for one in value]
