"""Ids and refs as text: UUIDs, ``str_…`` and ``sub_…``."""

from __future__ import annotations

import re
from typing import Final, Literal
from uuid import UUID

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", re.ASCII)
_REF: Final = re.compile(r"(?P<kind>str|sub)_(?P<hex>[0-9a-f]{32})", re.ASCII)
_HASHED_VERSIONS: Final = frozenset({3, 5})

NO_ID: Final = UUID(int=0)

RefKind = Literal["str", "sub"]


def parse_uuid(text: object) -> UUID | None:
    """Read the canonical form (RFC 9562 §4, hyphens, either case); None for anything else."""
    if not isinstance(text, str) or _UUID.fullmatch(text) is None:
        return None
    return UUID(text)


def client_id_fault(value: UUID) -> str | None:
    """Say why a client may not use this id, or None.

    Versions 3 and 5 are hashes: whoever has the id could guess back what was hashed, after the erasure too.
    """
    if value.version in _HASHED_VERSIONS:
        return "must not be a UUID made by hashing (version 3 or 5); use version 4 or 7"
    if value.version is None:
        return "must be a UUID of RFC 9562, best of version 7"
    return None


def correlation_id_fault(value: UUID) -> str | None:
    """Say why a client may not correlate by this id, or None.

    Trace ids (W3C Trace Context) are no UUIDs, yet stand in events as correlation ids: who reads one may pass it on.
    """
    is_trace_id = value.version is None and value != NO_ID
    return None if is_trace_id else client_id_fault(value)


def uuid7(unix_microseconds: int, random: bytes) -> UUID:
    """Make a UUID version 7 (RFC 9562 §5.7) of a time and 10 random bytes."""
    milliseconds = unix_microseconds // 1000
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(random[:10], "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return UUID(int=value)


def format_ref(kind: RefKind, ref: bytes) -> str:
    """Show 16 bytes as a ref."""
    return f"{kind}_{ref.hex()}"


def parse_ref(kind: RefKind, text: object) -> bytes | None:
    """Read a ref of that kind; None for anything else."""
    if not isinstance(text, str):
        return None
    match = _REF.fullmatch(text)
    if match is None or match["kind"] != kind:
        return None
    return bytes.fromhex(match["hex"])
