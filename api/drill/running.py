"""The drill: record a canary, erase it, rotate, destroy, and look everywhere for what is left.

Before the erasure everything is looked for with the same search as afterwards, and has to be found: a search that
cannot find shows nothing by finding nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from api.backups import BackupError, back_up
from api.drill import evidence, looking, verdicts
from api.drill.asking import WAYS
from api.drill.canary import derive, kept_documents, record
from api.drill.checks import BLIND, FAILED, Check, DrillError
from api.drill.looking import Scene
from api.drill.marks import Marks
from api.drill.notes import Follower, Notes, Plan
from api.drill.readers import Asked, Reader, Server
from api.drill.searching import SECRETS, Quarry
from api.wiring import Service
from keyvault.errors import EpochRefusedError, KeyVaultError
from ledger.domain.events import OPERATOR
from ledger.domain.names import ACTOR_PURPOSE
from ledger.domain.query import NameOrRef
from ledger.errors import LedgerError
from ledger.ports import ErasureEntry
from ledger.services.erase import ErasureOrder, erase_subject
from ledger.services.finality import sign_final_erasures

WORK: Final = "drill.work"
READERS: Final = 2
_ROTATIONS: Final = 2
"""The first may only finish what another had begun before the erasure; then the epoch of that one has to go as well."""
_EXPORTS: Final = (
    "the export that the drill made was deleted. A file that somebody has exported is a copy of that reader's own, in "
    "clear: no erasure of the ledger reaches it, and whoever keeps one answers for it"
)


def run_drill(plan: Plan, service: Service, follower: Follower) -> Notes:
    """Carry the drill out. Whatever goes wrong on the way is a check that has failed, so that there is a report of it.

    ``plan.out`` must be private, and no other drill may use it now.
    """
    notes = Notes(service.deps.clock, follower)
    work = plan.out / WORK
    if work.exists():
        shutil.rmtree(work)  # what a drill that was killed has left
    work.mkdir(mode=0o700)
    try:
        with ExitStack() as things:
            things.callback(shutil.rmtree, work)
            _go_through(plan, service, notes, things)
    except (DrillError, BackupError, LedgerError, KeyVaultError, OSError) as error:
        notes.checks.append(Check("the drill itself", notes.under_way, FAILED, f"it could not go on: {error}"))
    return notes


def _go_through(plan: Plan, service: Service, notes: Notes, things: ExitStack) -> None:
    scene = _record(plan, service, notes)
    with notes.step("ask"):
        askers = _askers(scene, things)
        warm = looking.ask(scene, askers)
    with notes.step("export"):
        notes.checks.append(verdicts.of_export(clear=_export_is_clear(scene)))
        notes.tell("exports", _EXPORTS)
    with notes.step("back up"):
        old = _back_up(scene, ("ledger", "keyvault"))
    with notes.step("search before"):
        before = looking.look(scene, old)
        could = looking.try_to_open(scene, before)
        remembered = _remembered(scene, askers)
        kept_before = service.vault.inspection.kept_epochs()
    _require_sight(notes, verdicts.of_sight(looking.file_groups(plan), warm, before, could, len(scene.exhibit.rows)))
    with notes.step("erase"):
        entries = _erase(scene)
        notes.erasure_ids = [str(entry.erasure_id) for entry in entries]
    with notes.step("ask again"):
        notes.checks += verdicts.of_answers(warm, looking.ask(scene, askers))
        notes.told += verdicts.told_of_memory(remembered, _remembered(scene, askers))
    new, destroyed, obstacles = _destroy_old_epochs(scene, notes, evidence.fence_of(entries))
    with notes.step("search after"):
        after = looking.look(scene, {**old, **new})
        can = looking.try_to_open(scene, after)
        notes.checks += verdicts.of_tables(before, after)
        notes.checks += verdicts.of_files(looking.file_groups(plan), before, after)
        notes.checks += verdicts.of_backups(before, after)
        notes.checks += verdicts.of_openings(
            len(scene.exhibit.rows), could, can, destroyed=not plan.without_destruction
        )
        notes.told += verdicts.told_of_files(after)
    _keep_backups(scene, notes, old, new)
    with notes.step("look at the records"):
        # One by one: what cannot be looked at must not hide what was found before it.
        notes.checks += evidence.check_epochs(scene, evidence.fence_of(entries), kept_before, obstacles)
        notes.checks.append(evidence.check_journal(scene, entries, destroyed))
        notes.checks.append(evidence.check_receipts(scene, entries))
        notes.checks.append(evidence.check_ledger(scene))
        notes.checks.append(evidence.check_final(scene, entries))


def _record(plan: Plan, service: Service, notes: Notes) -> Scene:
    began_at = service.deps.clock()
    with notes.step("record"):
        canary = record(service, Marks.fresh())
        exhibit = service.vault.inspection.exhibit(canary.ledger_id, canary.subject_ref)
        notes.ledger_id, notes.subject_ref = canary.ledger_id, canary.subject_ref
        notes.key_ids, notes.marks = exhibit.key_ids, canary.marks.hashes()
    with notes.step("make snapshot and read model"):
        derive(service, canary)
        return Scene(
            plan, service, canary, exhibit, Quarry.of(canary, exhibit), kept_documents(service, canary), began_at
        )


def _require_sight(notes: Notes, checks: Sequence[Check]) -> None:
    """A drill that would show nothing destroys nothing."""
    blind = [check for check in (*notes.checks, *checks) if not check.sees]
    if blind:
        what = "; ".join(f"{check.name} ({check.where}): not so: {check.control}" for check in blind)
        raise DrillError(f"{BLIND}, so nothing was erased, rotated or destroyed. {what}")


def _askers(scene: Scene, things: ExitStack) -> list[Asked]:
    plan = scene.plan
    askers: list[Asked] = []
    for number in range(1, READERS + 1):
        reader = Reader(f"reader process {number}", scene.question, plan.reader, plan.environment)
        things.callback(reader.close)
        askers.append(reader)
    if plan.url is not None:
        askers.append(Server(plan.url, plan.api_key or "", scene.question))
    return askers


def _remembered(scene: Scene, askers: Collection[Asked]) -> dict[str, int | None]:
    forms = (scene.canary.marks.run.encode(), *scene.exhibit.raw_keys)
    return {asker.name: asker.remembered(forms) for asker in askers if isinstance(asker, Reader)}


def _export_is_clear(scene: Scene) -> bool:
    """Make an export as the API answers with one, look into it, and delete it."""
    path = scene.plan.out / WORK / "export.ndjson"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(WAYS["export"](scene.service.deps, scene.question))
    content = path.read_bytes()
    path.unlink()
    marks = scene.canary.marks
    words = (marks.subject, marks.stream, *marks.values)
    return all(word.encode() in content for word in words) and "word" in scene.quarry.kinds_in(content, SECRETS)


def _back_up(scene: Scene, names: Sequence[str]) -> dict[str, Path]:
    plan = scene.plan
    taken_at = scene.service.deps.clock()
    folder = plan.out / WORK
    return {name: back_up(plan.databases[name], folder, name, taken_at, plan.settings.pg_dump) for name in names}


def _erase(scene: Scene) -> list[ErasureEntry]:
    """All of the canary; and then, by an order of its own as the law wants it, what it did as an actor."""
    who = NameOrRef(None, scene.canary.subject_ref)
    entries = []
    for purposes in (None, (ACTOR_PURPOSE,)):
        order = ErasureOrder(who, purposes, None, "drill", block_unknown=False, requested_by=OPERATOR)
        entries.append(erase_subject(scene.service.deps, scene.canary.ledger_id, order).erasure.entry)
    return entries


def _destroy_old_epochs(
    scene: Scene, notes: Notes, fence: int
) -> tuple[Mapping[str, Path], Sequence[int], Sequence[str]]:
    """Rotate, back the vault up, and destroy every epoch up to the fence's. Gives the backup, the epochs that were
    destroyed, and what stood in the way."""
    if scene.plan.without_destruction:
        return {}, (), ()
    epochs, deps = scene.service.vault.epochs, scene.service.deps
    with notes.step("rotate"):
        for _ in range(_ROTATIONS):
            if any(row.state == "current" and row.epoch > fence for row in epochs.overview().rows):
                break
            epochs.rotate()
    with notes.step("back up again"):
        taken_at = deps.clock()
        backup = back_up(
            scene.plan.databases["keyvault"], scene.plan.out, "keyvault", taken_at, scene.plan.settings.pg_dump
        )
        epochs.note_backup(taken_at, "made")
        notes.backups.append(backup.name)
    destroyed, obstacles = [], []
    with notes.step("destroy"):
        for epoch in range(1, fence + 1):
            try:
                if epochs.require_destroyable(epoch).state != "destroyed":
                    epochs.destroy(epoch)
                    destroyed.append(epoch)
            except EpochRefusedError as error:
                obstacles.append(f"{error.reason}: {error}")
        outcomes = sign_final_erasures(deps)
        obstacles += [f"unsigned: {failure}" for failure in outcomes.values() if failure is not None]
    return {looking.NEW_BACKUP: backup}, destroyed, obstacles


def _keep_backups(scene: Scene, notes: Notes, old: Mapping[str, Path], new: Mapping[str, Path]) -> None:
    """The backup from after the rotation always stays: of the vault no older one opens any more."""
    for path in new.values():
        notes.tell(
            "backup of the key vault",
            f"{path.name} was kept: if epochs were destroyed, older backups of the vault open nothing, and this is the "
            "one to restore. Move it to where you keep backups",
        )
    if scene.plan.keep_backups:
        for path in old.values():
            path.rename(scene.plan.out / path.name)
            notes.backups.append(path.name)
