"""Evidence of a log that has shown two histories: files that are written once and never again."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from api.private_files import sync, write_private

MOST: Final = 1000
"""Files of one kind, where others decide how many there are."""


def keep_evidence(folder: Path, kind: str, name: str, text: str, *, most: int | None = None) -> Path:
    """Keep a text in a file of its own, ``KIND-NAME.txt``. What is there under this name already stays as it is.

    When this returns the file is whole, and survives a crash. A name is made of what the text shows, so that the same
    evidence is kept once. Where there are ``most`` files of this kind, nothing is kept: the first ones show enough, and
    nobody can fill the disk. Raises ``OSError``.
    """
    path = folder / f"{kind}-{name}.txt"
    if path.exists() or (most is not None and sum(1 for _ in folder.glob(f"{kind}-*")) >= most):
        return path
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f".{secrets.token_hex(8)}.draft"
    write_private(draft, text.encode("utf-8", "backslashreplace"))
    try:
        # A link, because it never takes the place of another file, as a rename does.
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    sync(folder)
    return path
