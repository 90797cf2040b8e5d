"""What the page on cryptography says of the journal's lines is what a vault writes."""

from __future__ import annotations

import re
from pathlib import Path

from tests.contract.vault_world import LEDGER, erase, key_of, set_up, sqlite_world

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
        vault.unlink(LEDGER, erase(vault, "patient:A").subject_ref, world.clock())
        vault.epochs.rotate()
        vault.epochs.note_backup(world.clock(), "made")
        vault.epochs.destroy(1)
        written = {line.kind: set(line.fields) for line in world.journal()}
    assert set(written) == {"shred", "unlink", "epoch-created", "epoch-destroyed"}
    assert written == {kind: described[kind] for kind in written}
