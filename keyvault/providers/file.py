"""KEKs as files in a folder that only the service's user can read.

One file an epoch, ``epoch-1.kek``: ``0x01 ‖ KEK[32] ‖ the first 8 bytes of SHA-256("audit-ledger v1 kek file" ‖ KEK)``.
The check bytes tell a file that rotted (the provider is down: 503) from wraps that were tampered with (damaged).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from keyvault import envelope
from keyvault.errors import InsecureFolderError, ProviderError

_CHECK_SIZE: Final = 8
_FILE_SIZE: Final = 1 + envelope.KEY_SIZE + _CHECK_SIZE
_NAME: Final = re.compile(r"epoch-([1-9][0-9]*)\.kek", re.ASCII)


class FileProvider:
    """A :class:`~keyvault.providers.KeyProvider` over a folder.

    Reads the KEK anew for every call, so that a KEK that is taken away is out of use at once.
    """

    name = "file"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def place(self) -> Path:
        """See the contract."""
        return self._folder

    def create(self, epoch: int) -> None:
        """See the contract. Crash-safe: before the link there is no KEK, after it there is a whole one."""
        with _translated(f"make a KEK in {self._folder}"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _fsync_folder(self._folder.parent)
            with self._locked_folder() as folder:
                self._clear_leftovers()
                if not self._path(epoch).exists():
                    self._write(epoch)
                # Even for a KEK that was there already: the process that linked it may have died before its fsync.
                os.fsync(folder)
        self._read(epoch)

    def wrap(self, epoch: int, plaintext: bytes, aad: bytes) -> bytes:
        """See the contract."""
        return envelope.wrap(self._read(epoch), plaintext, aad)

    def unwrap(self, epoch: int, blob: bytes, aad: bytes) -> bytes:
        """See the contract."""
        return envelope.unwrap(self._read(epoch), blob, aad)

    def epochs(self) -> frozenset[int]:
        """See the contract."""
        with _translated(f"look into the folder of KEKs {self._folder}"):
            _require_private(os.stat(self._folder), self._folder, 0o700)
            found = (_NAME.fullmatch(name) for name in os.listdir(self._folder))
            return frozenset(int(match[1]) for match in found if match)

    def destroy(self, epoch: int) -> None:
        """See the contract. Crash-safe: doing it again completes it."""
        path = self._path(epoch)
        with _translated(f"destroy the KEK {path}"), self._locked_folder() as folder:
            self._clear_leftovers()
            if path.exists():
                fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.write(fd, bytes(_FILE_SIZE))
                    os.fsync(fd)
                finally:
                    os.close(fd)
                path.unlink()
            os.fsync(folder)

    def _path(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch}.kek"

    def _read(self, epoch: int) -> bytes:
        path = self._path(epoch)
        with _translated(f"read the KEK {path}; put the file back from its backup"):
            _require_private(os.stat(self._folder), self._folder, 0o700)
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                _require_private(os.fstat(fd), path, 0o600)
                content = os.read(fd, _FILE_SIZE + 1)
            finally:
                os.close(fd)
        kek = content[1 : 1 + envelope.KEY_SIZE]
        if content != envelope.FORMAT + kek + _check(kek):
            raise ProviderError(f"{path} is not a KEK file, or it is damaged; put the file back from its backup")
        return kek

    def _write(self, epoch: int) -> None:
        kek = os.urandom(envelope.KEY_SIZE)
        temporary = self._folder / f".new-{os.urandom(8).hex()}.kek"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, envelope.FORMAT + kek + _check(kek))
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            # A link and not a rename: a rename would replace a KEK that keys are wrapped under already.
            os.link(temporary, self._path(epoch))
        finally:
            temporary.unlink()

    def _clear_leftovers(self) -> None:
        """A crash between link and unlink leaves a second name of a KEK, which would outlive the KEK's destruction."""
        for leftover in self._folder.glob(".new-*.kek"):
            leftover.unlink()

    @contextmanager
    def _locked_folder(self) -> Iterator[int]:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _require_private(os.fstat(fd), self._folder, 0o700)
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)


def _check(kek: bytes) -> bytes:
    return hashlib.sha256(b"audit-ledger v1 kek file" + kek).digest()[:_CHECK_SIZE]


def _require_private(status: os.stat_result, path: Path, wanted: int) -> None:
    if status.st_uid != os.geteuid():
        raise InsecureFolderError(
            f"{path} belongs to user {status.st_uid}, the service runs as user {os.geteuid()}: "
            "run the service as the owner, or chown the folder and its files"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise InsecureFolderError(
            f"{path} is open to other users: chmod {wanted:o} it, and think of who may have read it"
        )


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProviderError(f"cannot {doing} ({error.strerror})") from error
