"""The append-only journal outside both databases: hash-chained, signed lines in a file.

A line is canonical JSON (sorted keys, no spaces) with ``n`` (1, 2, 3…), ``at`` (microseconds since 1970 UTC), ``kind``,
the fields of that kind, ``prev`` (SHA-256 of the line before as hex, 64 zeros in the first) and ``signature``
(Ed25519 as hex, over ``"audit-ledger v1 journal" ‖ 0x00 ‖`` the same line without ``signature``). A line that stands
there twice says nothing new: a step that a crash interrupted is repeated.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keyvault.errors import JournalError, KeyVaultError, VaultUnavailableError

_FIRST_PREV: Final = "0" * 64
_CONTEXT: Final = b"audit-ledger v1 journal\x00"
_BLOCK: Final = 8192
_WHAT_TO_DO: Final = (
    "stop the service, keep this file as evidence, and put back a copy that verifies, with what was appended since"
)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One verified line. ``fields``: what its kind says, without the chain's own fields."""

    n: int
    at: int
    kind: str
    fields: Mapping[str, Any]


class Journal:
    """The journal in one file. Threads and processes may append at once: each opens the file and locks it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, fields: Mapping[str, Any], *, at: int, key: Ed25519PrivateKey) -> int:
        """Append a line and give its number. When this returns, the line survives a crash.

        Only the last line is verified; :func:`read` verifies all. Raises :class:`JournalError` when the last line is
        not the service's own, :class:`VaultUnavailableError` when the file cannot be written.
        """
        with self._locked() as fd:
            last, end = self._last_line(fd)
            n = 1 if last is None else _verified(last, key.public_key(), self.path, None).n + 1
            unsigned = {**fields, "n": n, "at": at, "kind": kind, "prev": _hash(last)}
            signature = key.sign(_CONTEXT + _canonical(unsigned)).hex()
            self._write(fd, _canonical({**unsigned, "signature": signature}) + b"\n", end)
            return n

    def check(self, public_key: Ed25519PublicKey) -> None:
        """Raise unless a line could be appended now."""
        with self._locked() as fd:
            last, _ = self._last_line(fd)
            if last is not None:
                _verified(last, public_key, self.path, None)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # flock and not lockf: it also keeps the threads of one process apart, as each has its own descriptor.
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield fd
            finally:
                os.close(fd)
        except OSError as error:
            raise VaultUnavailableError(f"the journal {self.path} cannot be written ({error.strerror})") from error

    def _last_line(self, fd: int) -> tuple[bytes | None, int]:
        """The last complete line and the offset where it ends. What follows is an append that a crash cut off."""
        size = os.fstat(fd).st_size
        start, tail = size, b""
        while start > 0:
            block = min(_BLOCK, start)
            start -= block
            tail = os.pread(fd, block, start) + tail
            complete = tail.rpartition(b"\n")[0]
            if b"\n" in complete or (start == 0 and b"\n" in tail):
                return complete.rpartition(b"\n")[2], start + len(complete) + 1
        return None, 0

    def _write(self, fd: int, line: bytes, end: int) -> None:
        os.ftruncate(fd, end)  # cuts off an incomplete append: nobody was told that it was there
        written = 0
        while written < len(line):
            written += os.pwrite(fd, line[written:], end + written)
        os.fsync(fd)
        if end == 0:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)  # else a crash could lose the new file with the line that was acknowledged
            finally:
                os.close(folder)


def read(path: Path, public_key: Ed25519PublicKey) -> tuple[JournalEntry, ...]:
    """Every line, verified: signature, number and chain.

    An incomplete last line (no newline) was never acknowledged and is not part of the journal. Raises
    :class:`JournalError`, which names the first line that is wrong.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise VaultUnavailableError(f"the journal {path} cannot be read ({error.strerror})") from error
    entries: list[JournalEntry] = []
    previous: bytes | None = None
    for n, line in enumerate(lines, start=1):
        entry = _verified(line, public_key, path, n)
        if entry.n != n:
            raise _broken(path, n, f"has the number {entry.n}")
        if json.loads(line)["prev"] != _hash(previous):
            raise _broken(path, n, "does not follow the line before it")
        entries.append(entry)
        previous = line
    return tuple(entries)


def journal_from_url(url: str) -> Journal:
    """The journal that a setting such as ``file:/var/lib/audit-ledger/erasures.journal`` names."""
    scheme, _, rest = url.partition(":")
    if scheme == "file" and rest:
        return Journal(Path(rest))
    raise KeyVaultError(f"the journal setting has scheme {scheme!r}; supported is file:PATH")


def _verified(line: bytes, public_key: Ed25519PublicKey, path: Path, n: int | None) -> JournalEntry:
    try:
        content = json.loads(line)
        signature = bytes.fromhex(content.pop("signature"))
        # Canonical again: two texts of one line must not both pass.
        if _canonical({**content, "signature": signature.hex()}) != line:
            raise _broken(path, n, "is not written as the service writes it")
        public_key.verify(signature, _CONTEXT + _canonical(content))
        fields = {name: value for name, value in content.items() if name not in ("n", "at", "kind", "prev")}
        return JournalEntry(content["n"], content["at"], content["kind"], fields)
    except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature):
        raise _broken(path, n, "was not signed by the service, or was changed since") from None


def _broken(path: Path, n: int | None, how: str) -> JournalError:
    which = "its last line" if n is None else f"line {n}"
    return JournalError(f"the journal {path} is broken: {which} {how}; {_WHAT_TO_DO}")


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _hash(line: bytes | None) -> str:
    return _FIRST_PREV if line is None else hashlib.sha256(line).hexdigest()
