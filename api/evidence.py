"""Evidence of a log that has shown two histories: files that are written once and never again."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from api.private_files import sync, write_private


def keep_evidence(folder: Path, name: str, text: str) -> Path:
    """Keep a text in a file of its own. What is there under this name already stays as it is.

    When this returns the file is whole, and survives a crash. A name is made of what the text shows, so that the same
    evidence is kept once. Raises ``OSError``.
    """
    path = folder / name
    if path.exists():
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
