"""What the page on cryptography says of the journal's lines is what a vault writes."""

from __future__ import annotations

import re
from pathlib import Path

from tests.contract.vault_world import LEDGER, NOW, OPERATOR, erase, key_of, set_up, sqlite_world

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "cryptography.md"


def test_the_journals_lines_have_the_fields_that_the_page_says(tmp_path: Path) -> None:
    """An erasure, a name that is forgotten, a rotation and a destruction each leave the line that is described."""
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    described = {
        kind: set(re.findall(r"`(\w+)`", fields))
        for kinds, fields in re.findall(r"((?:`[a-z-]+`(?: and )?)+) \(((?:`\w+`(?:, )?)+)\)", text)
        for kind in re.findall(r"`([a-z-]+)`", kinds)
    }
    with sqlite_world(tmp_path) as world:
        vault = set_up(world)
        key_of(vault, "patient:A")
        key_of(vault, "patient:B")
        vault.unlink(LEDGER, erase(vault, "patient:A").subject_ref, world.clock())
        vault.epochs.rotate()
        vault.epochs.note_backup(world.clock(), "made")
        vault.epochs.destroy(1)
        ref = vault.find_subjects(LEDGER, ["patient:B"])["patient:B"].ref
        vault.restrict(LEDGER, ref, NOW)
        vault.lift_restriction(LEDGER, ref, NOW)
        reinstated = vault.reinstate(LEDGER, "patient:A", reason=None, reinstated_at=NOW, reinstated_by=OPERATOR)
        vault.finish_reinstatement(LEDGER, reinstated.subject_ref)
        vault.guard.write_checkpoint([LEDGER])
        written = {line.kind: set(line.fields) for line in world.journal()}
    assert written == described
