"""The last checkpoint that was signed of each log, in a folder beside the journal, outside of both databases.

A ledger's database that was restored from an older copy does not know what was published since; this folder does. One
file for each log and name of it, which holds the note and is replaced as a whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from keyvault.durable import sync_folder
from keyvault.errors import JournalError, VaultUnavailableError

_ORIGIN_DIGITS = 16


class SignedCheckpointFolder:
    """Satisfies ``ledger.ports.SignedCheckpoints``. Threads and processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, ledger_id: UUID, origin: str) -> str | None:
        """The note of the last one."""
        path = self._path(ledger_id, origin)
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise JournalError(f"{path} holds no checkpoint: put its newest copy back") from None
        except OSError as error:
            raise VaultUnavailableError(f"{path} cannot be read ({error.strerror})") from error

    def keep(self, ledger_id: UUID, origin: str, note: str, *, after: str | None) -> bool:
        """Replace what ``read`` gave by another note, if it is there still. When this returns, it survives a crash."""
        path = self._path(ledger_id, origin)
        try:
            with self._locked():
                known = self.read(ledger_id, origin)
                if known == after and known != note:
                    self._replace(path, note.encode())
                return known in (after, note)
        except OSError as error:
            raise VaultUnavailableError(f"{path} cannot be written ({error.strerror})") from error

    def _replace(self, path: Path, content: bytes) -> None:
        new = path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        sync_folder(self.folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.folder.parent)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # flock and not lockf: it also keeps the threads of one process apart, as each has its own descriptor.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _path(self, ledger_id: UUID, origin: str) -> Path:
        digits = hashlib.sha256(origin.encode()).hexdigest()[:_ORIGIN_DIGITS]
        return self.folder / f"{ledger_id}-{digits}.checkpoint"
