"""The random words of one drill, and the forms in which a secret could stand somewhere."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

_RUN_BYTES = 16
_MARKER_BYTES = 32


@dataclass(frozen=True, slots=True, repr=False)
class Marks:
    """``run`` stands in every name and value of the canary, so that one word finds them all; each value has 32 random
    bytes of its own behind it. ``beside`` is what is nonpersonal: it outlives the erasure, and so shows that answers
    and searches still come."""

    run: str
    values: tuple[str, ...]
    beside: str

    @classmethod
    def fresh(cls) -> Self:
        """Words that nobody has had before."""
        run = secrets.token_hex(_RUN_BYTES)
        values = tuple(f"{run}-{secrets.token_hex(_MARKER_BYTES)}" for _ in range(4))
        return cls(run, values, secrets.token_hex(_MARKER_BYTES))

    @property
    def subject(self) -> str:
        """The canary's name."""
        return f"drill-canary:{self.run}"

    @property
    def stream(self) -> str:
        """The stream that the canary owns."""
        return f"drill-{self.run}"

    @property
    def duty(self) -> str:
        """A stream that nobody owns, in which the canary acts. Its name outlives the erasure."""
        return f"drillduty-{self.beside[:32]}"

    def hashes(self) -> list[str]:
        """What a report shows of them: whoever has a word can tell it again, and nobody can tell the word."""
        return [sha256(word.encode()).hexdigest() for word in (self.run, *self.values)]


def forms_of(secret: bytes) -> frozenset[bytes]:
    """How bytes could stand somewhere: raw, in hexadecimal, in base64 (also amid more), as Python or JSON show them.

    Raw and in hexadecimal each half counts, since the end of a page can come in between.
    """
    forms = {repr(secret)[2:-1].encode()}
    middle = len(secret) // 2
    for half in (secret[:middle], secret[middle:]):
        forms |= {half, half.hex().encode(), half.hex().upper().encode()}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        # Without the characters that also hold bits of what stands before or behind.
        whole = encoded[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        forms |= {whole, whole.replace(b"+", b"-").replace(b"/", b"_")}
    return frozenset(forms)
