"""Has files looked into: database files with their free pages and dead rows, write-ahead logs, the journal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.drill.checks import DrillError
from api.drill.searching import Found, Kind, Quarry

_COMMAND: Final = (sys.executable, "-m", "api.drill.file_search")
_MARGIN_SECONDS: Final = 60.0
_KINDS: Final[tuple[Kind, ...]] = ("word", "key", "wrap", "part")
"""Ids are no secret, and stand in these files by right."""


@dataclass(frozen=True, slots=True)
class FileSearch:
    """What was found, and which files could not be read."""

    found: Found
    unreadable: tuple[str, ...]


def search_files(
    groups: Mapping[str, Collection[Path]], quarry: Quarry, since: int, environment: Mapping[str, str]
) -> dict[str, FileSearch]:
    """Look into files, and into all files under folders, that were written to since a time (µs): what was written last
    before the canary was made cannot hold it."""
    asked = {
        "groups": {name: [str(place) for place in places] for name, places in groups.items()},
        "since": since / 1_000_000 - _MARGIN_SECONDS,
        "forms": {kind: [form.hex() for form in quarry.forms[kind]] for kind in _KINDS},
    }
    done = subprocess.run(  # noqa: S603 - this program's own module, and no shell
        _COMMAND, input=json.dumps(asked).encode(), capture_output=True, env=dict(environment), check=False
    )
    if done.returncode != 0:
        raise DrillError("the process that looks into files has failed; drill again, and report it if it stays so")
    searches = {}
    for name, told in json.loads(done.stdout).items():
        found = Found(looked=told["looked"])
        for kind in _KINDS:
            for place in told["found"].get(kind, ()):
                found.note(kind, place)
        searches[name] = FileSearch(found, tuple(told["unreadable"]))
    return searches
