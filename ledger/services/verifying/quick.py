"""Whether a chunk of events is right, as quickly as Python can tell: on the bytes that the database delivers.

It decides exactly as ``readable`` does, and gives up (None) at whatever is not plainly right.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from typing import Final
from uuid import UUID

from ledger.domain.encoding import FORMAT_1
from ledger.domain.events import Role
from ledger.domain.fingerprint import fingerprint
from ledger.domain.verdicts import Verdict
from ledger.ports import LeafRow
from ledger.services.verifying.chunks import ERASED_TYPE_MARK, Chunk, How, KeyRegister, Keys, Shredder

_HEAD: Final = 33
"""Role and key id of a part, as the leaf has them too."""

_ROLES: Final = frozenset(int(role) for role in Role)
_SHREDDED: Final = int(Role.SHREDDED)
_NONPERSONAL: Final = int(Role.NONPERSONAL)
_TIME_SIGN: Final = 0x80

# Where the fields of a leaf lie in what is hashed of it (one byte stands before the leaf).
_LEDGER_ID: Final = slice(1, 18)
_EVENT_ID: Final = slice(26, 42)
_ID_AND_STREAM: Final = slice(26, 58)
_WORDS: Final = 66

_Parts = tuple[bytes, ...]
"""Of each part its head."""


def check(register: KeyRegister, first: int, rows: Sequence[LeafRow], how: How) -> Chunk | None:
    """Check the rows at the positions from ``first`` on; None: not all is plainly right."""
    positions = struct.pack(f">{len(rows)}Q", *range(first, first + len(rows)))
    times = [row[2] for row in rows]
    # Big-endian numbers without a sign stand in the order of their bytes.
    if b"".join([row[0] for row in rows]) != positions or times != sorted(times) or times[-1][0] & _TIME_SIGN:
        return None
    taken_apart = _check_leaves(rows)
    if taken_apart is None:
        return None
    heads, bodies = taken_apart
    distinct = {head for parts in heads for head in parts}
    key_ids = {head[1:] for head in distinct}
    counts = _verdicts(rows, first, heads, bodies, register.look_up(key_ids), how)
    if counts is None:
        return None
    return Chunk(
        [row[3] for row in rows],
        int.from_bytes(times[0], "big"),
        int.from_bytes(times[-1], "big"),
        _shredders(rows, first, heads) if _may_shred(rows, distinct) else (),
        fingerprint(how.key, _records(rows, heads)),
        counts,
        (),
        sum([len(row[4]) for row in rows]),
    )


def _check_leaves(rows: Sequence[LeafRow]) -> tuple[list[_Parts], list[_Parts]] | None:
    """Recompute every leaf hash. Gives the heads and the bodies of the parts of each row."""
    heads: list[_Parts] = []
    bodies: list[_Parts] = []
    for _, prefix, _, leaf_hash, sealed in rows:
        # One part, much the most frequent: the general way costs twice as much.
        if sealed[:2] == b"\x01\x01" and int.from_bytes(sealed[35:39], "big") == len(sealed) - 39:
            head, body = sealed[2:35], sealed[39:]
            leaf = prefix + b"\x01" + head + sha256(body).digest()
            heads.append((head,))
            bodies.append((body,))
            if head[0] not in _ROLES:
                return None
        else:
            parts = _unpack(sealed)
            if parts is None:
                return None
            hashed = [head + sha256(body).digest() for head, body in parts]
            leaf = b"".join((prefix, bytes((len(parts),)), *hashed))
            heads.append(tuple([head for head, _ in parts]))
            bodies.append(tuple([body for _, body in parts]))
        if sha256(leaf).digest() != leaf_hash:
            return None
    return heads, bodies


def _unpack(sealed: bytes) -> list[tuple[bytes, bytes]] | None:
    """Head and body of each part; None for what ``pack_parts`` cannot have given."""
    if sealed[:1] != FORMAT_1 or len(sealed) < 2:
        return None
    parts = []
    at = 2
    for _ in range(sealed[1]):
        body = at + _HEAD + 4
        end = body + int.from_bytes(sealed[at + _HEAD : body], "big")
        if end > len(sealed) or sealed[at] not in _ROLES:
            return None
        parts.append((sealed[at : at + _HEAD], sealed[body:end]))
        at = end
    return parts if at == len(sealed) else None


def _verdicts(
    rows: Sequence[LeafRow], first: int, heads: Sequence[_Parts], bodies: Sequence[_Parts], keys: Keys, how: How
) -> Counter[Verdict] | None:
    if not how.opening and not keys.dead:
        return Counter({"intact": len(rows)})
    counts: Counter[Verdict] = Counter()
    for position, (row, parts, sealed) in enumerate(zip(rows, heads, bodies, strict=True), first):
        verdict = _verdict(position, row[1], parts, sealed, keys, how)
        if verdict is None:
            return None
        counts[verdict] += 1
    return counts


def _verdict(position: int, prefix: bytes, heads: _Parts, bodies: _Parts, keys: Keys, how: How) -> Verdict | None:
    verdict: Verdict = "intact"
    aad = b""
    for number, head in enumerate(heads):
        key_id = head[1:]
        if head[0] == _SHREDDED:
            continue
        died_at = keys.dead.get(key_id)
        if died_at is not None:
            if died_at < position:
                return None
            verdict = "erased"
        elif how.opening:
            view = keys.views.get(key_id)
            if view is None:
                return None
            if view.status == "restricted":
                verdict = "erased" if verdict == "erased" else "restricted"
                continue
            aad = aad or _aad(prefix, heads)
            if view.key is None or not _opens(view.key.open, bodies[number], aad + bytes((number,))):
                return None
    return verdict


def _opens(open_part: Callable[[bytes, bytes], bytes], body: bytes, aad: bytes) -> bool:
    try:
        open_part(body, aad)
    except ValueError:
        return False
    return True


def _aad(prefix: bytes, heads: _Parts) -> bytes:
    """The AAD of all parts but for the number of the part (design §5), out of the leaf."""
    type_at = _WORDS + 2 + int.from_bytes(prefix[_WORDS : _WORDS + 2], "big")
    schema_at = type_at + 2 + int.from_bytes(prefix[type_at : type_at + 2], "big")
    words_and_schema, times_and_ids = prefix[_WORDS : schema_at + 4], prefix[schema_at + 12 : -16]
    count = bytes((len(heads),))
    return b"".join((prefix[_LEDGER_ID], prefix[_ID_AND_STREAM], words_and_schema, times_and_ids, count, *heads))


def _may_shred(rows: Sequence[LeafRow], heads: Collection[bytes]) -> bool:
    if _SHREDDED in {head[0] for head in heads}:
        return True
    # As a list: a generator takes three times as long.
    return True in [row[1].startswith(ERASED_TYPE_MARK, _WORDS) for row in rows]


def _shredders(rows: Sequence[LeafRow], first: int, heads: Sequence[_Parts]) -> list[Shredder]:
    shredders = []
    for position, (row, parts) in enumerate(zip(rows, heads, strict=True), first):
        is_erasure = row[1].startswith(ERASED_TYPE_MARK, _WORDS)
        key_ids = tuple(head[1:] for head in parts if head[0] == _SHREDDED)
        if is_erasure or key_ids:
            shredders.append(Shredder(position, UUID(bytes=row[1][_EVENT_ID]), key_ids, is_erasure))
    return shredders


def _between(part: int) -> Mapping[int, bytes]:
    """What stands between position and key_id in a row of ``event_keys``, by role."""
    return {
        role: b"\x00\x00\x00\x02"
        + part.to_bytes(2, "big")
        + b"\x00\x00\x00\x02"
        + role.to_bytes(2, "big")
        + b"\x00\x00\x00\x20"
        for role in _ROLES
    }


_BETWEEN: Final = [_between(part) for part in range(256)]


def _records(rows: Sequence[LeafRow], heads: Sequence[_Parts]) -> list[bytes]:
    """``key_record`` of every part but nonpersonal ones, written out."""
    return [
        b"\x00\x00\x00\x08" + row[0] + _BETWEEN[number][head[0]] + head[1:]
        for row, parts in zip(rows, heads, strict=True)
        for number, head in enumerate(parts)
        if head[0] != _NONPERSONAL
    ]
