"""Projections: read models as pure folds over the events of a ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ledger.domain.catalogue import Catalogue
from ledger.domain.events import PERSONAL_ROLES, JsonObject, OpenedEvent, RecordedEvent, Redaction, Role
from ledger.domain.names import word_fault
from ledger.domain.partition import BY_SUBJECT, Partition, Share, places
from ledger.domain.query import PinnedQuery
from ledger.domain.shapes import Shape, in_unknown_shape, note_shape, shapes_from_json, shapes_to_json, still_fit
from ledger.domain.state import HiddenCount, HiddenParts
from ledger.domain.upcasting import Upcasters


@dataclass(frozen=True, slots=True)
class Projection:
    """How a read model follows from the log.

    ``apply``: a pure function from a document (at first ``{}``) and an event to the next document; it changes neither
    of its arguments, lets events of unknown types pass, and gives JSON. Documents belong to name and ``version``: who
    changes what ``apply`` does raises it, and the read model is built anew beside the old. ``category``, ``types``
    (empty: all): the events that it is told of. ``roles``: the parts of an event that it may see. A projection without
    roles sees no sealed part and no name, only what is in clear anyway, and its documents are kept in clear.
    """

    name: str
    version: int
    partition: Partition
    apply: Callable[[JsonObject, OpenedEvent], JsonObject]
    category: str | None = None
    types: tuple[str, ...] = ()
    roles: frozenset[Role] = frozenset({Role.SUBJECT, Role.NONPERSONAL})

    def __post_init__(self) -> None:
        fault = word_fault(self.name)
        if fault is not None:
            # The name stands in addresses and metrics.
            raise ValueError(f"the name of a projection {fault}")
        if self.version < 1:
            raise ValueError("the version of a projection must be at least 1")
        if self.partition is BY_SUBJECT and self.roles.isdisjoint(PERSONAL_ROLES):
            raise ValueError("a projection by subject must look at parts of persons: see roles")

    @property
    def label(self) -> str:
        """``name/version``, which its documents are bound to."""
        return label_of(self.name, self.version)

    @property
    def in_clear(self) -> bool:
        """Whether its documents are kept in clear."""
        return not self.roles

    def selects(self, event: RecordedEvent) -> bool:
        """Whether it is told of an event."""
        envelope = event.envelope
        return self.category in (None, envelope.category) and (not self.types or envelope.event_type in self.types)

    def shares(self, event: OpenedEvent) -> Sequence[Share]:
        """The documents that an event goes into, and what each may see of it."""
        return self.partition.shares(event, self.roles)

    def query(self, key: bytes, position: int) -> PinnedQuery:
        """The events of one document, up to ``position``. Raises ``ValueError`` for a key that no document has."""
        everything = PinnedQuery(as_of=position, category=self.category, types=self.types)
        return self.partition.query(key, everything)


def label_of(name: str, version: int) -> str:
    """``name/version``."""
    return f"{name}/{version}"


class DocumentFold:
    """One document on its way through the log: what ``apply`` made of it, and what it must be sealed and filed with.

    ``held``: the keys of parts that were restricted; when the state of one of them changes, the document has to be made
    again. ``shapes``: event type → the shape in which its events went in; likewise when they would go in in another.
    ``key_ids``: of the subjects' keys that parts of its events were opened with.
    """

    def __init__(self, bucket: str = "", position: int = -1, leaf_hash: bytes = b"") -> None:
        self.document: JsonObject = {}
        self.bucket = bucket
        self.position = position
        self.leaf_hash = leaf_hash
        self.events = 0
        self.unknown_versions = 0
        self.key_ids: set[bytes] = set()
        self.held: set[bytes] = set()
        self.shapes: dict[str, Shape] = {}
        self._hidden = HiddenCount()

    @property
    def hidden(self) -> tuple[HiddenParts, ...]:
        """What could not be seen, by cause."""
        return self._hidden.result()

    @property
    def complete(self) -> bool:
        """False when something hidden could have changed the document."""
        return not self.hidden

    @property
    def provisional(self) -> bool:
        """Whether something is not shown that may be tomorrow: hidden and not erased, or of a version that nobody knows
        the way from."""
        return self.unknown_versions > 0 or any(part.redaction.reason != "erased" for part in self.hidden)

    def fits(self, catalogue: Catalogue, upcasters: Upcasters) -> bool:
        """Whether its events would still go in as they did."""
        return still_fit(self.shapes, catalogue, upcasters)

    def take(self, projection: Projection, event: OpenedEvent, document: JsonObject) -> None:
        """Go on behind an event, of which ``apply`` made this document."""
        self.document = document
        self.bucket = projection.partition.bucket(event)
        self.position = event.recorded.position
        self.leaf_hash = event.recorded.leaf_hash
        self.events += 1
        self.key_ids.update(event.opened_keys)
        # Of an event of which nothing is opened the shape does not matter.
        if not projection.in_clear:
            self._see_shape(event)
        if not event.redactions:
            return
        keys = dict(places(event.recorded, projection.roles))
        for redaction in event.redactions:
            self._hidden.add(redaction, event.recorded.position)
            if redaction.reason == "restricted" and redaction.pointer in keys:
                self.held.add(keys[redaction.pointer])

    def _see_shape(self, event: OpenedEvent) -> None:
        if in_unknown_shape(event):
            self.unknown_versions += 1
        else:
            # Where a version was registered in between, no catalogue will ever fit, so the document is made again.
            note_shape(self.shapes, event)

    def to_json(self) -> JsonObject:
        """What is sealed (or, of a projection without roles, kept in clear)."""
        return {
            "document": self.document,
            "events": self.events,
            "unknown_versions": self.unknown_versions,
            "hidden": [_hidden_to_json(hidden) for hidden in self.hidden],
            "held": sorted(key_id.hex() for key_id in self.held),
            "shapes": shapes_to_json(self.shapes),
        }

    @classmethod
    def from_json(
        cls, content: JsonObject, *, bucket: str, position: int, leaf_hash: bytes, key_ids: Sequence[bytes]
    ) -> DocumentFold:
        """The fold that was kept. Raises ``ValueError`` for what ``to_json`` did not make."""
        fold = cls(bucket, position, leaf_hash)
        try:
            fold.document = dict(content["document"])
            fold.events = int(content["events"])
            fold.unknown_versions = int(content["unknown_versions"])
            fold.held = {bytes.fromhex(key_id) for key_id in content["held"]}
            fold.shapes = shapes_from_json(content["shapes"])
            fold._hidden = HiddenCount(_hidden_from_json(members) for members in content["hidden"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError("not a document of a read model") from error
        fold.key_ids = set(key_ids)
        return fold


def _hidden_to_json(hidden: HiddenParts) -> dict[str, Any]:
    redaction = hidden.redaction
    return {
        "pointer": redaction.pointer,
        "subject_ref": redaction.subject_ref.hex() if redaction.subject_ref is not None else None,
        "purpose": redaction.purpose,
        "reason": redaction.reason,
        "at": redaction.at,
        "erasure_id": redaction.erasure_id.hex if redaction.erasure_id is not None else None,
        "events": hidden.events,
        "positions": list(hidden.positions),
    }


def _hidden_from_json(members: dict[str, Any]) -> HiddenParts:
    ref, erasure_id = members["subject_ref"], members["erasure_id"]
    redaction = Redaction(
        pointer=members["pointer"],
        subject_ref=bytes.fromhex(ref) if ref is not None else None,
        purpose=members["purpose"],
        reason=members["reason"],
        at=members["at"],
        erasure_id=UUID(hex=erasure_id) if erasure_id is not None else None,
    )
    first, last = members["positions"]
    return HiddenParts(redaction, members["events"], (first, last))
