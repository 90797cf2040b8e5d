"""From what was seen before and after the erasure to checks with verdicts. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from api.drill.checks import Check, Told, judged, unseen
from api.drill.files import FileSearch
from api.drill.looking import OWN, SERVERS, Answers, FileGroup, Openings, Sight
from api.drill.searching import NAMES, SECRETS, Found

_TABLES: Final = "no table holds it"
_FILES: Final = "no file holds it"
_BACKUPS: Final = "no backup holds it in clear"
_NOT_DESTROYED: Final = (
    "not shown: the KEK lives, since --without-destruction was given, so whoever has an old copy of the vault and the "
    "KEK can still open what was erased"
)


def of_sight(groups: Sequence[FileGroup], warm: Answers, before: Sight, could: Openings, keys: int) -> list[Check]:
    """The checks as they stand before the erasure: their faults mean nothing yet, but they must be seen to see."""
    return [
        *of_answers(warm, warm),
        *of_tables(before, before),
        *of_files([group for group in groups if group.own], before, before),
        *of_backups(before, before),
        *of_openings(keys, could, could, destroyed=True),
    ]


def of_answers(warm: Answers, after: Answers) -> list[Check]:
    """Everybody was asked before, so that caches were warm, and the moment that the erasure was acknowledged."""
    checks = []
    for who, answers in after.items():
        before = warm[who]
        faults = [f"the answer to {way} shows the canary" for way, answer in answers.items() if answer.ever_clear]
        faults += [f"the answer to {way} is no redaction" for way, one in answers.items() if not one.always_erased]
        sees = all(answer.always_clear and not answer.always_erased for answer in before.values())
        checks.append(
            judged(
                "the first answers after the erasure are redacted",
                who,
                faults=faults,
                held=f"{len(answers)} ways of asking, all redacted: {', '.join(answers)}",
                sees=sees,
                control="before the erasure each of these answers showed the canary",
            )
        )
    return checks


def of_export(*, clear: bool) -> Check:
    """The positive control of the search for words: an export has them in clear, as it must."""
    return judged(
        "the search for words sees them",
        "an export from before the erasure",
        faults=(),
        held="the canary's name and values were found in the export",
        sees=clear,
        control="the export was made before the erasure, and has them in clear",
    )


def of_tables(before: Sight, after: Sight) -> list[Check]:
    """Every column of every table."""
    checks = []
    for name, found in after.live.items():
        own = OWN[name]
        faults = [*_were(before.live[name]), *found.faults(*SECRETS)]
        control = f"before the erasure {NAMES[own]} was found"
        sees = before.live[name].count[own] > 0
        if name == "keyvault":
            # I6: shredding takes the row, and no table keeps a copy.
            faults += found.faults("wrap")
        else:
            control += ", and is found now: not a byte of an event changes"
            sees = sees and found.count[own] > 0
        held = f"{found.looked} rows of all tables; nothing of the canary in clear, and no key of it"
        where = f"every table of the {name} database"
        checks.append(judged(_TABLES, where, faults=faults, held=held, sees=sees, control=control))
    return checks


def of_backups(before: Sight, after: Sight) -> list[Check]:
    """Backups from before the erasure, and the one of the vault from after the rotation."""
    checks = []
    for name, found in after.backups.items():
        faults = found.faults(*SECRETS)
        if name in before.backups:
            own = OWN[name]
            where = f"the backup of the {name} database from before the erasure"
            control = f"{NAMES[own]} is found in it"
            sees = before.backups[name].count[own] > 0 and found.count[own] > 0
        else:
            where, control = "the backup of the keyvault database from after the rotation", "it has the canary's fences"
            faults += found.faults("wrap")
            sees = found.count["id"] > 0
        held = f"{found.looked} rows; nothing of the canary in clear, and no key unwrapped"
        checks.append(judged(_BACKUPS, where, faults=faults, held=held, sees=sees, control=control))
    return checks


def of_files(groups: Sequence[FileGroup], before: Sight, after: Sight) -> list[Check]:
    """Free pages, dead rows and write-ahead logs, where they can be read."""
    checks = []
    for group in groups:
        if group.name not in after.files:
            why = "dead rows and write-ahead logs are seen there only; give --data-directory for each database's server"
            checks.append(unseen(_FILES, group.name, why))
            continue
        checks.append(_of_group(group, before.files[group.name], after.files[group.name]))
    return checks


def _of_group(group: FileGroup, before: FileSearch, after: FileSearch) -> Check:
    faults = [*_were(before.found), *after.found.faults(*SECRETS)]
    if after.unreadable and not faults:
        some = ", ".join(after.unreadable[:3])
        why = f"{len(after.unreadable)} files or folders may not be read, such as {some}"
        return unseen(_FILES, group.name, why)
    if group.own:
        sees = all(before.found.count[kind] for kind in group.own)
        control = f"before the erasure {' and '.join(NAMES[kind] for kind in group.own)} was found"
    else:
        sees, control = after.found.looked > 0, "it was written to since, by the erasure"
    if group.name == SERVERS:
        control += "; the folders must be those of both databases' servers"
    held = f"files looked into: {after.found.looked}, all that were written to since the drill began"
    return judged(_FILES, group.name, faults=faults, held=held, sees=sees, control=control)


def told_of_files(after: Sight) -> list[Told]:
    """Where wrapped keys still lie, which is why epochs are destroyed."""
    places = [place for files in after.files.values() for place in files.found.places.get("wrap", ())]
    places += [f"the drill's backup of the {name}" for name, found in after.backups.items() if found.count["wrap"]]
    text = f"found in {', '.join(sorted(places))}" if places else "found nowhere"
    return [Told("wrapped keys that still lie around", f"{text}; whether they open is a check above")]


def of_openings(keys: int, before: Openings, after: Openings, *, destroyed: bool) -> list[Check]:
    """What counts in the end: nothing opens."""
    checks = []
    where = "tables, backups, and the rows as they were before the erasure, with every KEK that the provider has"
    named = ("no wrapped key of the canary opens", where), ("no sealed part of the canary opens", "with every key left")
    if not destroyed:
        checks += [unseen(*one, _NOT_DESTROYED) for one in named]
    else:
        faults = [f"{after.keys} of {keys} keys of the canary still open"] if after.keys else []
        control = f"before the erasure {before.keys_of_backup} of {keys} keys opened from the backup"
        sees = before.keys == before.keys_of_backup == keys
        held = f"{keys} wrapped keys, each as of every epoch, with each KEK"
        checks.append(judged(*named[0], faults=faults, held=held, sees=sees, control=control))
        faults = [f"{after.parts} of {before.parts} sealed parts of the canary still open"] if after.parts else []
        control = f"before the erasure {before.parts} parts opened, and what is nonpersonal opens now"
        sees = before.parts > 0 and before.beside and after.beside
        held = f"{before.parts} sealed parts"
        checks.append(judged(*named[1], faults=faults, held=held, sees=sees, control=control))
    faults = [f"the {name} from before the erasure still opens" for name in after.documents]
    control = f"before the erasure there opened: {', '.join(before.documents)}"
    sees = len(before.documents) == 2
    where = "snapshot and read model from before the erasure"
    held = "neither opens"
    checks.append(judged("no derived document opens", where, faults=faults, held=held, sees=sees, control=control))
    return checks


def told_of_memory(before: Mapping[str, int | None], after: Mapping[str, int | None]) -> list[Told]:
    """Python cannot promise to wipe memory, and nobody claims it: so this decides nothing."""
    told = []
    for who, count in after.items():
        was, now = ("unknown" if one is None else str(one) for one in (before[who], count))
        text = f"places that hold a name, a value or a key of the canary: {was} before the erasure, {now} after it"
        told.append(Told(f"memory of {who}", f"{text}. Wiping memory is not claimed; the answers are checked above"))
    return told


def _were(found: Found) -> list[str]:
    """I5: nothing stands anywhere in clear while somebody lives, either."""
    return [f"even before the erasure {fault}" for fault in found.faults(*SECRETS)]
