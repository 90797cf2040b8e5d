"""JSON Pointers (RFC 6901): from the members that lead to a value to text, and back."""

from __future__ import annotations

import re
from typing import Any, Final

from ledger.domain.difference import ABSENT, Path

POINTER_LENGTH: Final = 1024
POINTER_FORM: Final = f"must be a JSON Pointer (RFC 6901) of at most {POINTER_LENGTH} characters, like /address/city"

_TOKENS: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)


def format_pointer(path: Path) -> str:
    """Show a path as a pointer; the empty path is the whole document."""
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in path)


def parse_pointer(text: object) -> Path | None:
    """Read a pointer; None for anything else, and for one above ``POINTER_LENGTH``."""
    if text == "":
        return ()
    if not isinstance(text, str) or len(text) > POINTER_LENGTH or _TOKENS.fullmatch(text) is None:
        return None
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in text[1:].split("/"))


def pointer_fault(value: object) -> str | None:
    """Say what is wrong with a pointer of a request, or None."""
    return POINTER_FORM if parse_pointer(value) is None else None


def value_at(document: Any, path: Path) -> Any:
    """The value that a path leads to, through objects by member and through arrays by index; ``ABSENT``: none."""
    for token in path:
        if isinstance(document, dict):
            document = document.get(token, ABSENT)
        elif isinstance(document, list):
            index = int(token) if _INDEX.fullmatch(token) else len(document)
            document = document[index] if index < len(document) else ABSENT
        else:
            return ABSENT
    return document
