"""What is looked for, and how it is told in bytes and in rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal

from api.drill.canary import Canary
from api.drill.marks import forms_of
from keyvault.inspection import Exhibit

Kind = Literal["word", "key", "wrap", "part", "id"]
"""A word of the canary in clear; a raw data key; a wrapped key; a sealed part; the id of a key or of the subject."""

SECRETS: Final[tuple[Kind, ...]] = ("word", "key")
"""What must stand nowhere, before the erasure and after it."""
NAMES: Final[Mapping[Kind, str]] = {
    "word": "a name or value of the canary in clear",
    "key": "a data key of the canary, unwrapped",
    "wrap": "a wrapped key of the canary",
    "part": "a sealed part of the canary's events",
    "id": "an id of the canary",
}

_ROWS_AT_ONCE: Final = 256
_SAMPLE: Final = 24
_SEALED_PARTS: Final = 3
_LEAST_WRAP: Final = 45
_MOST_WRAP: Final = 4096
_WRAP_LAYOUTS: Final = (1, 2, 3)


@dataclass(frozen=True, slots=True, repr=False)
class Quarry:
    """Every form of everything that is looked for, by what it is. Holds raw keys: never shown, never written down."""

    forms: Mapping[Kind, tuple[bytes, ...]]
    wraps: tuple[bytes, ...]

    @classmethod
    def of(cls, canary: Canary, exhibit: Exhibit) -> Quarry:
        """What to look for after an erasure of this canary."""
        wraps = tuple(row.wrapped for row in exhibit.rows)
        ids = (canary.subject_ref, *exhibit.key_ids)
        forms: dict[Kind, tuple[bytes, ...]] = {
            "word": tuple(forms_of(canary.marks.run.encode()) | {canary.marks.run.upper().encode()}),
            "key": tuple(form for key in exhibit.raw_keys for form in forms_of(key)),
            "wrap": tuple(form for wrap in wraps for form in _samples(wrap)),
            "part": tuple(form for piece in canary.pieces[:_SEALED_PARTS] for form in _samples(piece.sealed)),
            "id": tuple(form for one in ids for form in (one, one.hex().encode())),
        }
        return cls(forms, wraps)

    def kinds_in(self, content: bytes, among: Iterable[Kind]) -> Iterator[Kind]:
        """What stands there."""
        for kind in among:
            if any(form in content for form in self.forms[kind]):
                yield kind


def _samples(blob: bytes) -> Iterator[bytes]:
    """Two pieces of a blob, raw and in hexadecimal: enough to tell it, even across the end of a page."""
    for start in (1, len(blob) // 2):
        yield blob[start : start + _SAMPLE]
        yield blob[start : start + _SAMPLE].hex().encode()


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """One row of any table, or one line of a dump that belongs to none. A value that is not bytes: as its text."""

    table: str
    columns: Sequence[str]
    values: Sequence[bytes]


@dataclass(slots=True, repr=False)
class Found:
    """What a search has come across: how often, where, and the blobs that could be wrapped keys of the canary."""

    looked: int = 0
    count: Counter[Kind] = field(default_factory=Counter)
    places: dict[Kind, set[str]] = field(default_factory=dict)
    wraps: set[bytes] = field(default_factory=set)

    def note(self, kind: Kind, place: str) -> None:
        """It stands there."""
        self.count[kind] += 1
        self.places.setdefault(kind, set()).add(place)

    def faults(self, *kinds: Kind) -> list[str]:
        """What of these kinds was found, and where."""
        return [f"{NAMES[kind]} in {', '.join(sorted(self.places[kind]))}" for kind in kinds if self.count[kind]]


def search_rows(rows: Iterable[Row], quarry: Quarry) -> Found:
    """Look through rows, in constant memory."""
    found = Found()
    left = iter(rows)
    while some := list(islice(left, _ROWS_AT_ONCE)):
        found.looked += len(some)
        together = b"\x00".join(value for row in some for value in row.values)
        if next(quarry.kinds_in(together, quarry.forms), None) is not None:
            for row in some:
                _look_at(row, quarry, found)
    return found


def _look_at(row: Row, quarry: Quarry, found: Found) -> None:
    kinds: set[Kind] = set()
    for number, value in enumerate(row.values):
        place = f"{row.table}.{row.columns[number]}" if number < len(row.columns) else row.table
        for kind in quarry.kinds_in(value, quarry.forms):
            kinds.add(kind)
            found.note(kind, place)
    if kinds & {"wrap", "id"}:
        # Whatever a row about the canary holds that could be a wrapped key, rewrapped ones included.
        found.wraps.update(value for value in row.values if _could_be_wrap(value))


def _could_be_wrap(value: bytes) -> bool:
    return _LEAST_WRAP <= len(value) <= _MOST_WRAP and value[0] in _WRAP_LAYOUTS
