"""Looks into files byte by byte. ``python -m api.drill.file_search``: what is asked comes as JSON on standard input.

A process of its own: whoever opens and closes the file of an SQLite database drops the locks that SQLite holds on it in
his own process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_BLOCK: Final = 2**24

Forms = Mapping[str, Sequence[bytes]]


def main() -> None:
    """Look into the files of each group, and tell what was found in which, and what could not be read."""
    asked = json.load(sys.stdin)
    forms = {kind: [bytes.fromhex(form) for form in some] for kind, some in asked["forms"].items()}
    answers = {name: _search(places, forms, asked["since"]) for name, places in asked["groups"].items()}
    sys.stdout.write(json.dumps(answers))


def _search(places: Sequence[str], forms: Forms, since: float) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    unreadable: list[str] = []
    looked = 0
    for path in _files_under(places, unreadable):
        try:
            if path.stat().st_mtime < since:
                continue
            kinds = kinds_in(path, forms)
        except FileNotFoundError:  # databases make files and delete them all the time
            continue
        except OSError:
            unreadable.append(str(path))
            continue
        looked += 1
        for kind in kinds:
            found.setdefault(kind, []).append(str(path))
    return {"looked": looked, "found": found, "unreadable": unreadable}


def _files_under(places: Sequence[str], unreadable: list[str]) -> Iterator[Path]:
    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            unreadable.append(str(error.filename))

    for place in map(Path, places):
        if not place.is_dir():
            yield place
            continue
        # PostgreSQL has its tablespaces, and often its write-ahead log, behind symbolic links.
        for folder, _, names in os.walk(place, onerror=note, followlinks=True):
            yield from (Path(folder, name) for name in names if Path(folder, name).is_file())


def kinds_in(path: Path, forms: Forms, block: int = _BLOCK) -> set[str]:
    """What stands in a file, also across the blocks in which it is read."""
    overlap = max(len(form) for some in forms.values() for form in some) - 1
    kinds: set[str] = set()
    before = b""
    with path.open("rb") as file:
        while piece := file.read(block):
            content = before + piece
            kinds |= {kind for kind, some in forms.items() if any(form in content for form in some)}
            before = content[-overlap:]
    return kinds


if __name__ == "__main__":
    main()
