"""Evidence of a log that has shown two histories: files that are written once and never again."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from api.private_files import sync, write_private

MOST: Final = 1000
"""Files of one kind, where only the holder of a log's key can make them."""

NEWEST: Final = 32
"""Files of one kind beside the first one, where anybody can make them."""


def keep_evidence(
    folder: Path, kind: str, name: str, text: str, *, most: int | None = None, newest: int | None = None
) -> Path:
    """Keep a text in a file of its own, ``KIND-NAME.txt``. What is there under this name already stays as it is.

    When this returns the file is whole, and survives a crash. A name is made of what the text shows, so that the same
    evidence is kept once. Nobody can fill the disk: where there are ``most`` files of this kind, nothing is kept, since
    each of them shows enough; with ``newest``, the first one stays and so many of the last ones. Raises ``OSError``.
    """
    path = folder / f"{kind}-{name}.txt"
    if path.exists() or (most is not None and sum(1 for _ in folder.glob(f"{kind}-*")) >= most):
        return path
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f".{secrets.token_hex(8)}.draft"
    write_private(draft, text.encode("utf-8", "backslashreplace"))
    # Exactly: the clock of file systems ticks too rarely to tell which came first.
    os.utime(draft, ns=(time.time_ns(), time.time_ns()))
    try:
        # A link, because it never takes the place of another file, as a rename does.
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    sync(folder)
    if newest is not None:
        # Another process may do the same.
        with suppress(FileNotFoundError):
            _forget_older(folder, kind, newest)
    return path


def _forget_older(folder: Path, kind: str, newest: int) -> None:
    files = sorted(folder.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime_ns)
    for path in files[1:-newest]:
        path.unlink()
