"""In which shapes events were folded: who keeps what came of it must know when they would be folded in others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger.domain.catalogue import Catalogue
from ledger.domain.events import OpenedEvent
from ledger.domain.upcasting import Upcasters

_UNREGISTERED: Final = 0
_MIXED: Final = -1


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape in which the events of a type were folded. ``version``: of its schema; 0: the type was not registered,
    so they were shown as recorded; -1: they were not all shown in the same version.

    ``by_code``: the versions from which code led some of them on. What is registered leads the same way for good; code
    leads only until something is registered in its place, and only in the processes that have it.
    """

    version: int
    by_code: frozenset[int] = frozenset()

    @property
    def mixed(self) -> bool:
        """Whether a version of the type was registered while its events were folded."""
        return self.version == _MIXED


Shapes = Mapping[str, Shape]
"""Event type → the shape of its events."""


def shape_of(event: OpenedEvent) -> Shape:
    """The shape of one event that is shown in one: see ``in_unknown_shape``."""
    version = _UNREGISTERED if event.schema_status == "unregistered" else event.shown_version
    return Shape(version, frozenset(event.led_by_code))


def in_unknown_shape(event: OpenedEvent) -> bool:
    """Whether an event is shown as recorded although its type is registered: nobody knows the way to the newest."""
    return event.schema_status in ("unknown-version", "failed")


def note_shape(shapes: dict[str, Shape], event: OpenedEvent) -> None:
    """Add the shape of one more event to those of the events before it."""
    shape = shape_of(event)
    known = shapes.setdefault(event.recorded.envelope.event_type, shape)
    if known != shape:
        version = known.version if known.version == shape.version else _MIXED
        shapes[event.recorded.envelope.event_type] = Shape(version, known.by_code | shape.by_code)


def still_fit(shapes: Shapes, catalogue: Catalogue, upcasters: Upcasters) -> bool:
    """Whether the events would be folded in the same shapes now."""
    return all(
        (catalogue.newest(event_type, upcasters) or _UNREGISTERED) == shape.version
        and all(catalogue.is_by_code(event_type, old, upcasters) for old in shape.by_code)
        for event_type, shape in shapes.items()
    )


def shapes_to_json(shapes: Shapes) -> dict[str, list[int]]:
    """For each type the version, then those that code led from."""
    return {event_type: [shape.version, *sorted(shape.by_code)] for event_type, shape in shapes.items()}


def shapes_from_json(members: Any) -> dict[str, Shape]:
    """What ``shapes_to_json`` was given. Raises ``ValueError`` for anything else."""
    try:
        return {event_type: Shape(version, frozenset(olds)) for event_type, (version, *olds) in members.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError("not the shapes of events") from None
