"""The append-only journal outside both databases: hash-chained, signed lines in a file.

A line is canonical JSON (sorted keys, no spaces) with ``n`` (1, 2, 3…), ``at`` (microseconds since 1970 UTC), ``kind``,
the fields of that kind, ``prev`` (SHA-256 of the line before as hex, 64 zeros in the first) and ``signature``
(Ed25519 as hex, over ``"audit-ledger v1 journal" ‖ 0x00 ‖`` the same line without ``signature``). A line that stands
there twice says nothing new: a step that a crash interrupted is repeated.

Whoever uses the journal remembers how far it was (:class:`JournalMark`) and shows that at each use. A file that is
missing, shorter, or another one is never written to, and never begun anew: that is an error which says what to do.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keyvault.durable import sync_folder
from keyvault.errors import JournalError, KeyVaultError, VaultUnavailableError

_FOREIGN: Final = "was not signed by the service, or was changed since"
_FIRST_PREV: Final = "0" * 64
_CONTEXT: Final = b"audit-ledger v1 journal\x00"
_BLOCK: Final = 8192
_MOST_ASIDE: Final = 10_000
_WHAT_TO_DO: Final = (
    "stop the service, keep what is there as evidence, and put back the newest copy; if there is none that fits, "
    "`audit-ledger vault reconcile --new-journal` begins another one with what vault and ledgers know"
)


@dataclass(frozen=True, slots=True)
class JournalMark:
    """How far the journal was: the number of its last line, and that line's SHA-256. 0: it had none."""

    n: int
    digest: bytes


NO_LINES: Final = JournalMark(0, bytes(32))


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One verified line. ``fields``: what its kind says, without the chain's own fields."""

    n: int
    at: int
    kind: str
    fields: Mapping[str, Any]
    mark: JournalMark


class Journal:
    """The journal in one file. Threads and processes may append at once: each opens the file and locks it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(
        self, kind: str, fields: Mapping[str, Any], *, at: int, key: Ed25519PrivateKey, after: JournalMark
    ) -> JournalMark:
        """Append a line and give the mark behind it. When this returns, the line survives a crash.

        ``after``: how far the journal is known to have been. Only lines from there on are verified; :func:`read`
        verifies all. Raises :class:`JournalError` when the journal is not the one that was seen then, or its end is not
        the service's own; :class:`VaultUnavailableError` when the file cannot be written.
        """
        with self._locked(create=after.n == 0) as fd:
            last, end = self._last_line(fd)
            n = 1 if last is None else _verified(last, key.public_key(), self.path, None).n + 1
            self._require(fd, last, end, after)
            unsigned = {**fields, "n": n, "at": at, "kind": kind, "prev": _hash(last)}
            signature = key.sign(_CONTEXT + _canonical(unsigned)).hex()
            line = _canonical({**unsigned, "signature": signature})
            self._write(fd, line + b"\n", end)
            return JournalMark(n, hashlib.sha256(line).digest())

    def check(self, public_key: Ed25519PublicKey, after: JournalMark) -> None:
        """Raise unless a line could be appended now, behind the mark."""
        with self._locked(create=after.n == 0) as fd:
            last, end = self._last_line(fd)
            if last is not None:
                _verified(last, public_key, self.path, None)
            self._require(fd, last, end, after)

    def signature(self) -> tuple[int, ...] | None:
        """Changes whenever the file does; None where there is no file. For whoever wants to look only then."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def behind(self, mark: JournalMark, public_key: Ed25519PublicKey) -> tuple[JournalEntry, ...]:
        """The lines behind the mark, verified. Raises as :meth:`append` does, for a missing file too."""
        with self._locked(create=mark.n == 0) as fd:
            last, end = self._last_line(fd)
            lines = self._require(fd, last, end, mark)
        return tuple(_verified(line, public_key, self.path, mark.n + 1 + index) for index, line in enumerate(lines))

    def begin_anew(
        self, lines: Iterable[tuple[str, Mapping[str, Any]]], *, at: int, key: Ed25519PrivateKey
    ) -> tuple[Path | None, JournalMark]:
        """Put a journal of these lines (kind and fields) in the place of the file, which keeps another name beside it.

        Gives that name (None: there was no file) and the mark behind the last line. A crash leaves the one or the
        other, and both are whole.
        """
        new = Journal(self.path.with_name(f"{self.path.name}.new"))
        try:
            new.path.unlink(missing_ok=True)
            mark = NO_LINES
            for kind, fields in lines:
                mark = new.append(kind, fields, at=at, key=key, after=mark)
            place = self._set_aside()
            os.rename(new.path, self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise VaultUnavailableError(f"the journal {self.path} cannot be begun anew ({error.strerror})") from error
        return place, mark

    def set_aside(self) -> Sequence[Path]:
        """The files that were journals before this one, the oldest first."""
        found = []
        for number in range(1, _MOST_ASIDE):
            place = self.path.with_name(f"{self.path.name}.{number}")
            if not place.exists():
                break
            found.append(place)
        return found

    def _set_aside(self) -> Path | None:
        place = self.path.with_name(f"{self.path.name}.{len(self.set_aside()) + 1}")
        if not self.path.exists():
            return None
        os.link(self.path, place)
        return place

    @contextmanager
    def _locked(self, *, create: bool) -> Iterator[int]:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            fd = os.open(self.path, flags, 0o600)
        except FileNotFoundError as error:
            raise _missing(self.path) from error
        except OSError as error:
            raise VaultUnavailableError(f"the journal {self.path} cannot be written ({error.strerror})") from error
        try:
            # flock and not lockf: it also keeps the threads of one process apart, as each has its own descriptor.
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        except OSError as error:
            raise VaultUnavailableError(f"the journal {self.path} cannot be written ({error.strerror})") from error
        finally:
            os.close(fd)

    def _require(self, fd: int, last: bytes | None, end: int, mark: JournalMark) -> list[bytes]:
        """The lines behind the mark, oldest first. Raises unless they go on from the line that it names."""
        newer: list[bytes] = []
        line = last
        while line is not None and _number(line) > mark.n:
            newer.append(line)
            end -= len(line) + 1
            before, _ = self._line_before(fd, end)
            if _prev(line) != _hash(before):
                raise _broken(self.path, _number(line), "does not follow the line before it")
            line = before
        if mark.n and (line is None or hashlib.sha256(line).digest() != mark.digest):
            n = 0 if line is None else _number(line)
            how = f"has {n} lines, and {mark.n} were there" if n < mark.n else f"has another line {mark.n} than it had"
            raise JournalError(
                f"the journal {self.path} {how}: it was restored from an older copy, cut short or altered; "
                f"{_WHAT_TO_DO}"
            )
        return newer[::-1]

    def _last_line(self, fd: int) -> tuple[bytes | None, int]:
        """The last complete line and the offset where it ends. What follows is an append that a crash cut off."""
        return self._line_before(fd, os.fstat(fd).st_size)

    def _line_before(self, fd: int, size: int) -> tuple[bytes | None, int]:
        """The last complete line before an offset, and the offset where it ends."""
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
            sync_folder(self.path.parent)  # else a crash could lose the new file with the line that was acknowledged


def read(path: Path, public_key: Ed25519PublicKey) -> tuple[JournalEntry, ...]:
    """Every line, verified: signature, number and chain.

    An incomplete last line (no newline) was never acknowledged and is not part of the journal. Raises
    :class:`JournalError`, which names the first line that is wrong.
    """
    return tuple(_verified(line, public_key, path, n) for n, line in _chained(path))


def readable_lines(path: Path, public_key: Ed25519PublicKey) -> Sequence[JournalEntry]:
    """What can be read of a file that is no journal any more: every line that the service has signed, wherever it
    stands."""
    found = []
    try:
        texts = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    for text in texts:
        with suppress(JournalError):
            found.append(_verified(text, public_key, path, None))
    return found


def verify_chain(path: Path, mark: JournalMark) -> None:
    """Raise :class:`JournalError` unless the lines up to the mark are those that were there when it was noted.

    Each line names the hash of the one before it, so the mark vouches for all of them without a signature's cost.
    """
    digest = NO_LINES.digest
    for n, line in _chained(path):
        if n == mark.n:
            digest = hashlib.sha256(line).digest()
    if digest != mark.digest:
        raise JournalError(
            f"the journal {path} is not the one that was there: it was restored from an older copy, cut short or "
            f"altered; {_WHAT_TO_DO}"
        )


def _chained(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and text of every complete line; raises where one does not follow the one before it."""
    previous: bytes | None = None
    try:
        with path.open("rb") as file:
            for n, text in enumerate(file, start=1):
                if not text.endswith(b"\n"):
                    return
                line = text[:-1]
                if _number(line) != n:
                    raise _broken(path, n, f"has the number {_number(line)}" if _number(line) else _FOREIGN)
                if _prev(line) != _hash(previous):
                    raise _broken(path, n, "does not follow the line before it")
                yield n, line
                previous = line
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise VaultUnavailableError(f"the journal {path} cannot be read ({error.strerror})") from error


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
        mark = JournalMark(content["n"], hashlib.sha256(line).digest())
        return JournalEntry(content["n"], content["at"], content["kind"], fields, mark)
    except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature):
        raise _broken(path, n, _FOREIGN) from None


def _number(line: bytes) -> int:
    """The number that a line gives itself; 0 for what is no line."""
    n = _members(line).get("n")
    return n if isinstance(n, int) and n > 0 else 0


def _prev(line: bytes) -> object:
    return _members(line).get("prev")


def _members(line: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _missing(path: Path) -> KeyVaultError:
    if not path.parent.is_dir():
        return VaultUnavailableError(f"the folder of the journal {path} is not there; is its disk?")
    return JournalError(f"the journal {path} is missing; {_WHAT_TO_DO}")


def _broken(path: Path, n: int | None, how: str) -> JournalError:
    which = "its last line" if n is None else f"line {n}"
    return JournalError(f"the journal {path} is broken: {which} {how}; {_WHAT_TO_DO}")


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _hash(line: bytes | None) -> str:
    return _FIRST_PREV if line is None else hashlib.sha256(line).hexdigest()
