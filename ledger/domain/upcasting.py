"""From old versions of an event type to the newest: ways that are written in code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ledger.domain.events import JsonObject

UpcastFunction = Callable[[JsonObject | None, JsonObject | None], tuple[JsonObject | None, JsonObject | None]]
"""From (data, nonpersonal) in the shape of one version to both in the shape of the next. Changes no argument. Either is
None where an event has none, or where it is hidden."""


@dataclass(frozen=True, slots=True)
class Upcasters:
    """The functions that lead from one version of a type to the next, by (type, version led from)."""

    functions: Mapping[tuple[str, int], UpcastFunction] = field(default_factory=dict)
