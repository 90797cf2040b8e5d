"""How values are declared that are made in great numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["value"]

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from dataclasses import dataclass

    def value(*, frozen, slots):
        """A frozen dataclass to the type checker alone.

        At run time ``frozen`` makes a value cost five times as much, and of these there are several for each event
        that is read or recorded.
        """
        return dataclass(slots=slots, unsafe_hash=frozen)
