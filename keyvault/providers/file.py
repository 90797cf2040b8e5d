"""KEKs as files in a folder that only the service's user can read.

One file an epoch, ``epoch-1.kek``: ``0x01 ‖ KEK[32] ‖ the first 8 bytes of SHA-256("audit-ledger v1 kek file" ‖ KEK)``.
The check bytes tell a file that rotted (the provider is down: 503) from wraps that were tampered with (damaged), and a
KEK from what is left of one whose destruction was cut short.
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
from keyvault.durable import sync_folder
from keyvault.errors import InsecureFolderError, ProviderError

_CHECK_SIZE: Final = 8
_FILE_SIZE: Final = 1 + envelope.KEY_SIZE + _CHECK_SIZE
_NAME: Final = re.compile(r"epoch-([1-9][0-9]*)\.kek", re.ASCII)
_LEFTOVER: Final = re.compile(r"\.new-[0-9a-f]{16}\.kek", re.ASCII)


class FileProvider:
    """A :class:`~keyvault.providers.KeyProvider` over a folder.

    Reads the KEK anew for every call, so that a KEK that is taken away is out of use at once.
    """

    name = "file"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The folder that was found to lie in no database's data directory, by device and inode.
        self._looked_at: tuple[int, int] | None = None

    @property
    def place(self) -> Path:
        """See the contract."""
        return self._folder

    def create(self, epoch: int) -> None:
        """See the contract. Crash-safe: before the link there is no KEK, after it there is a whole one."""
        with _translated(f"make a KEK in {self._folder}"):
            _require_outside_of_databases(self._folder.resolve())
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self._folder.parent)
            with self._locked_folder() as folder:
                _clear_leftovers(folder)
                if _file_of(epoch) not in os.listdir(folder):
                    _write(folder, epoch)
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
        """See the contract. A file counts whatever is in it: one that is damaged may have a copy, and one whose
        destruction was cut short is not destroyed yet."""
        with _translated(f"look into the folder of KEKs {self._folder}; is its disk there?"), self._opened() as folder:
            return frozenset(int(found[1]) for name in os.listdir(folder) if (found := _NAME.fullmatch(name)))

    def strays(self) -> tuple[str, ...]:
        """Files in the folder that hold a KEK under a name that is none: copies, which no destruction reaches."""
        with _translated(f"look into the folder of KEKs {self._folder}; is its disk there?"), self._opened() as folder:
            others = (name for name in sorted(os.listdir(folder)) if _NAME.fullmatch(name) is None)
            return tuple(name for name in others if _holds_kek(folder, name))

    def destroy(self, epoch: int) -> None:
        """See the contract. Crash-safe: until the file's name is gone for good the epoch is among :meth:`epochs`, and
        doing it again completes it.

        Overwriting reaches the blocks that a disk keeps in their place; flash and file systems that copy on write may
        keep the old ones for a while, so the folder belongs on an encrypted disk.
        """
        with _translated(f"destroy the KEK of epoch {epoch} in {self._folder}"), self._locked_folder() as folder:
            # A second name that a crash left would outlive the first.
            _clear_leftovers(folder)
            if _file_of(epoch) in os.listdir(folder):
                _overwrite(folder, _file_of(epoch))
                os.unlink(_file_of(epoch), dir_fd=folder)
            # Even if there was none: the process that removed it may have died before its fsync.
            os.fsync(folder)

    def _read(self, epoch: int) -> bytes:
        path = self._folder / _file_of(epoch)
        restore = "put the file back from its copy, unless the epoch was destroyed on purpose: then it is gone for good"
        with _translated(f"read the KEK {path}; {restore}"), self._opened() as folder:
            fd = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                _require_private(os.fstat(fd), path, 0o600)
                content = os.read(fd, _FILE_SIZE + 1)
            finally:
                os.close(fd)
        kek = _kek_in(content)
        if kek is None:
            raise ProviderError(f"{path} is not a KEK file, or it is damaged; {restore}")
        return kek

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The folder, once it is known that nobody else reaches what is in it."""
        if self._folder.is_symlink():
            raise InsecureFolderError(
                f"{self._folder} is a symbolic link, which can be led elsewhere: name the folder itself in the setting"
            )
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            _require_private(status, self._folder, 0o700)
            if self._looked_at != (status.st_dev, status.st_ino):
                _require_outside_of_databases(self._folder.resolve())
                self._looked_at = (status.st_dev, status.st_ino)
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _locked_folder(self) -> Iterator[int]:
        with self._opened() as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield folder


def _file_of(epoch: int) -> str:
    return f"epoch-{epoch}.kek"


def _kek_in(content: bytes) -> bytes | None:
    kek = content[1 : 1 + envelope.KEY_SIZE]
    return kek if content == envelope.FORMAT + kek + _check(kek) else None


def _holds_kek(folder: int, name: str) -> bool:
    """Whether this is a file of a KEK, whatever it is called. A pipe or a device is not opened."""
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return False
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        return _kek_in(os.read(fd, _FILE_SIZE + 1)) is not None
    finally:
        os.close(fd)


def _write(folder: int, epoch: int) -> None:
    kek = os.urandom(envelope.KEY_SIZE)
    temporary = f".new-{os.urandom(8).hex()}.kek"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        os.write(fd, envelope.FORMAT + kek + _check(kek))
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        # A link and not a rename: a rename would replace a KEK that keys are wrapped under already.
        os.link(temporary, _file_of(epoch), src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.unlink(temporary, dir_fd=folder)


def _clear_leftovers(folder: int) -> None:
    """A crash between link and unlink leaves a second name of a KEK, which would outlive the KEK's destruction; one
    before the link leaves a KEK that was never used."""
    for name in filter(_LEFTOVER.fullmatch, os.listdir(folder)):
        # What has a second name is the KEK of a living epoch: of that, only the wrong name goes.
        if os.stat(name, dir_fd=folder, follow_symlinks=False).st_nlink == 1:
            _overwrite(folder, name)
        os.unlink(name, dir_fd=folder)


def _overwrite(folder: int, name: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(fd, bytes(max(_FILE_SIZE, os.fstat(fd).st_size)))
        os.fsync(fd)
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


def _require_outside_of_databases(folder: Path) -> None:
    for place in (folder, *folder.parents):
        if (place / "PG_VERSION").exists():
            raise InsecureFolderError(
                f"{folder} lies in {place}, a data directory of PostgreSQL, so that every backup of it holds the KEKs: "
                "give the KEKs a folder elsewhere"
            )


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProviderError(f"cannot {doing} ({error.strerror})") from error
