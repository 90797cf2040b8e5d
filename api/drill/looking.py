"""Looks everywhere for a canary, before its erasure and after it, in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.drill.asking import Question
from api.drill.canary import Canary, documents_that_open, parts_that_open
from api.drill.files import FileSearch, search_files
from api.drill.notes import Plan
from api.drill.places import backup_rows, is_sqlite, live_rows, sqlite_file
from api.drill.readers import Asked
from api.drill.searching import Found, Kind, Quarry, search_rows
from api.wiring import Service
from keyvault.inspection import Exhibit
from ledger.services.documents import Sealed

OWN: Final[Mapping[str, Kind]] = {"ledger": "part", "keyvault": "wrap"}
"""What stands in each database of somebody who lives."""
SERVERS: Final = "PostgreSQL's data directories"
JOURNAL: Final = "the journal's file"
NEW_BACKUP: Final = "keyvault, new"
_ROUNDS: Final = 3
_ERASED: Final = b'"erased"'


@dataclass(frozen=True, slots=True, repr=False)
class Scene:
    """The installation, the canary in it, and copies of what will be gone. ``began_at``: before it was recorded."""

    plan: Plan
    service: Service
    canary: Canary
    exhibit: Exhibit
    quarry: Quarry
    kept: Mapping[str, Sealed]
    began_at: int

    @property
    def question(self) -> Question:
        """What readers are asked."""
        canary = self.canary
        return Question(canary.ledger_id, canary.subject_ref, canary.stream_ref, canary.last)


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen: in tables and in backups by their names, in files by the group that they belong to."""

    live: Mapping[str, Found]
    backups: Mapping[str, Found]
    files: Mapping[str, FileSearch]

    @property
    def wraps(self) -> set[bytes]:
        """All that could be wrapped keys of the canary."""
        return {wrap for found in (*self.live.values(), *self.backups.values()) for wrap in found.wraps}


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files that are looked into together, and what has to be found in them before the erasure."""

    name: str
    places: tuple[Path, ...]
    own: tuple[Kind, ...]


def file_groups(plan: Plan) -> list[FileGroup]:
    """The files of each SQLite database; the data directories of PostgreSQL; the journal."""
    groups = []
    on_servers: list[Kind] = []
    for name, url in plan.databases.items():
        if is_sqlite(url):
            file = sqlite_file(url)
            files = tuple(file.with_name(file.name + end) for end in ("", "-wal", "-shm", "-journal"))
            groups.append(FileGroup(f"files of the {name} database", files, (OWN[name],)))
        else:
            on_servers.append(OWN[name])
    if on_servers:
        groups.append(FileGroup(SERVERS, plan.data_directories, tuple(on_servers)))
    return [*groups, FileGroup(JOURNAL, (Path(plan.settings.journal.partition(":")[2]),), ())]


def look(scene: Scene, backups: Mapping[str, Path]) -> Sight:
    """Look into every table, every backup and every file that can be looked into. Raises ``BackupError`` when a table
    or a backup cannot be read."""
    plan, quarry = scene.plan, scene.quarry
    program = plan.settings.pg_dump
    live, restored = {}, {}
    for name, url in plan.databases.items():
        with live_rows(url, program) as rows:
            live[name] = search_rows(rows, quarry)
    for name, backup in backups.items():
        with backup_rows(backup, program) as rows:
            restored[name] = search_rows(rows, quarry)
    groups = {group.name: group.places for group in file_groups(plan) if group.places}
    return Sight(live, restored, search_files(groups, quarry, scene.began_at, plan.environment))


@dataclass(frozen=True, slots=True)
class Openings:
    """What can be opened: how many of the canary's keys (and how many by what stands in the backup alone), how many of
    its sealed parts, which derived documents; and whether what is not the canary's still opens."""

    keys: int
    keys_of_backup: int
    parts: int
    documents: tuple[str, ...]
    beside: bool


def try_to_open(scene: Scene, sight: Sight) -> Openings:
    """Try every wrapped key that was seen anywhere with every KEK that the provider has; and every sealed part with
    every key that opens."""
    inspection, canary, exhibit = scene.service.vault.inspection, scene.canary, scene.exhibit
    keys = inspection.keys_opened_by(exhibit, sight.wraps | set(scene.quarry.wraps))
    others = inspection.keys_of_ledger(canary.ledger_id)
    return Openings(
        keys=len(keys),
        keys_of_backup=len(inspection.keys_opened_by(exhibit, sight.backups["keyvault"].wraps)),
        parts=parts_that_open(canary.pieces, [*keys, *others]),
        documents=tuple(documents_that_open(scene.service, canary, scene.kept)),
        beside=parts_that_open([canary.beside], others) == 1,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What one way of asking has shown, however often: names and values of the canary, or redactions."""

    ever_clear: bool
    always_clear: bool
    always_erased: bool


Answers = Mapping[str, Mapping[str, Answer]]
"""Who was asked → way → answer."""


def ask(scene: Scene, askers: list[Asked]) -> Answers:
    """Ask everybody in every way, and each several times: a server has several processes, and any may answer. Raises
    ``DrillError`` when somebody does not answer."""
    run = scene.canary.marks.run.encode()
    found: dict[str, dict[str, Answer]] = {}
    for asker in askers * _ROUNDS:
        told = found.setdefault(asker.name, {})
        for way, text in asker.ask().items():
            clear, erased = run in text, _ERASED in text
            known = told.get(way, Answer(ever_clear=False, always_clear=True, always_erased=True))
            told[way] = Answer(known.ever_clear or clear, known.always_clear and clear, known.always_erased and erased)
    return found
