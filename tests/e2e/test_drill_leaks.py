"""A drill that cannot fail shows nothing: each of these puts a leak in on purpose, and is found by the right check."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.drill.checks import BLIND, FAILED, overall
from tests.support.drills import DrilledPlace, found_by, the_check
from tests.support.postgres import PostgresCluster

TABLES, FILES, BACKUPS = "no table holds it", "no file holds it", "no backup holds it in clear"
FROM_MEMORY = """\
from api.drill import reader

way, kept = reader.WAYS["state"], []


def from_memory(deps, of):
    kept[:] = kept or [way(deps, of)]
    return kept[0]


reader.WAYS = {**reader.WAYS, "state": from_memory}
reader.main()
"""
JOURNAL = "the journal has its lines"
KEYS, PARTS = "no wrapped key of the canary opens", "no sealed part of the canary opens"


@pytest.fixture
def place(tmp_path: Path) -> DrilledPlace:
    """On SQLite."""
    return DrilledPlace.made(tmp_path)


def kek(place: DrilledPlace, epoch: int) -> Path:
    """The file of a KEK."""
    return Path(place.settings.kek.removeprefix("file:"), f"epoch-{epoch}.kek")


def test_a_copy_of_the_plaintext_in_a_table(place: DrilledPlace) -> None:
    """In a table that the service knows nothing of; so it is in the files and in the backup too."""
    place.plants["record"] = lambda at: at.write(
        "ledger", "CREATE TABLE support_notes (note TEXT)", "INSERT INTO support_notes VALUES (?)", values=(at.secret,)
    )
    notes = place.drill()
    assert "support_notes.note" in the_check(notes, TABLES, "ledger").found
    assert {name for name, _ in found_by(notes, FAILED)} == {TABLES, FILES, BACKUPS}
    assert the_check(notes, TABLES, "keyvault").verdict == "held"


def test_a_raw_key_in_a_column_of_the_vault(place: DrilledPlace) -> None:
    """In hexadecimal, where a name's hash should be."""

    def plant(at: DrilledPlace) -> None:
        assert at.exhibit is not None
        row = (b"\x01" * 16, at.exhibit.raw_keys[0].hex(), b"\x02" * 16)
        at.write("keyvault", "INSERT INTO streams (ledger_id, name_hash, stream_ref) VALUES (?, ?, ?)", values=row)

    place.plants["record"] = plant
    notes = place.drill()
    assert "unwrapped in streams.name_hash" in the_check(notes, TABLES, "keyvault").found
    assert {name for name, _ in found_by(notes, FAILED)} == {TABLES, FILES, BACKUPS}
    assert the_check(notes, TABLES, "ledger").verdict == "held"


def test_a_wrapped_key_that_was_copied_and_a_kek_that_is_back(place: DrilledPlace, tmp_path: Path) -> None:
    """The old KEK is put back from a copy: with it the copied row opens, and the old backup as well."""
    copy = tmp_path / "copy.kek"

    def keep(at: DrilledPlace) -> None:
        at.write("keyvault", "CREATE TABLE kept AS SELECT * FROM subject_keys")
        shutil.copy2(kek(at, 1), copy)

    def put_back(at: DrilledPlace) -> None:
        shutil.copy2(copy, kek(at, 1))
        shutil.copy2(copy, kek(at, 1).with_name("epoch-1.kek.bak"))

    place.plants |= {"record": keep, "destroy": put_back}
    notes = place.drill()
    assert the_check(notes, KEYS, "").found == "4 of 4 keys of the canary still open"
    assert "still open" in the_check(notes, PARTS, "").found
    assert "kept.wrapped_dek" in the_check(notes, TABLES, "keyvault").found
    back = the_check(notes, "no KEK is back", "").found
    assert "epoch 1, which was destroyed" in back
    assert "epoch-1.kek.bak" in back
    assert FILES not in {name for name, _ in found_by(notes, FAILED)}


def test_a_reader_that_answers_from_a_copy_of_its_own(place: DrilledPlace, tmp_path: Path) -> None:
    """One way of asking is enough."""
    script = tmp_path / "reader.py"
    script.write_text(FROM_MEMORY)
    notes = place.drill(reader=(sys.executable, str(script)))
    failed = found_by(notes, FAILED)
    assert [where for _, where in failed] == ["reader process 1", "reader process 2"]
    assert set(failed.values()) == {"the answer to state shows the canary; the answer to state is no redaction"}


def test_a_reader_that_ends_ends_the_drill(place: DrilledPlace) -> None:
    """That is written down like anything else that failed, and nothing lies around."""
    notes = place.drill(reader=(sys.executable, "-c", ""))
    assert [(check.name, check.where, check.verdict) for check in notes.checks] == [("the drill itself", "ask", FAILED)]
    assert "did not answer" in notes.checks[0].found or "has ended" in notes.checks[0].found
    assert list(place.out.iterdir()) == []


def test_a_search_that_does_not_see_ends_the_drill_before_anything_is_destroyed(
    place: DrilledPlace, tmp_path: Path
) -> None:
    """Readers that never show anything would be redacted afterwards, too."""
    script = tmp_path / "reader.py"
    script.write_text(FROM_MEMORY.replace("kept[:] = kept or [way(deps, of)]", "kept[:] = [b'{}']"))
    notes = place.drill(reader=(sys.executable, str(script)))
    (found,) = found_by(notes, FAILED).values()
    assert BLIND in found
    assert found.count("reader process") == 2
    assert "erase" not in place.seen
    with place.service() as service:
        assert [row.state for row in service.vault.epochs.overview().rows] == ["current"]


def test_a_read_model_in_clear_and_a_journal_that_was_altered(place: DrilledPlace) -> None:
    """Written after the erasure: no backup of before has it. Of two leaks each is told by a check of its own."""

    def alter(at: DrilledPlace) -> None:
        journal = Path(at.settings.journal.removeprefix("file:"))
        journal.write_bytes(journal.read_bytes().replace(b'"kind":"shred"', b'"kind":"lift"', 1))

    place.plants["ask again"] = lambda at: at.write(
        "ledger", "UPDATE read_models SET body = ?", values=(f'{{"note":"{at.secret}"}}'.encode(),)
    )
    place.plants["destroy"] = alter
    notes = place.drill()
    assert "read_models.body" in the_check(notes, TABLES, "ledger").found
    assert "line 2" in the_check(notes, JOURNAL, "").found
    assert {name for name, _ in found_by(notes, FAILED)} == {TABLES, FILES, JOURNAL}


def test_a_row_that_was_deleted_and_lies_in_a_free_page(place: DrilledPlace) -> None:
    """No table has it any more, and no dump of one would: only the file."""
    place.plants["record"] = lambda at: at.write(
        "ledger",
        "PRAGMA secure_delete = OFF",
        "CREATE TABLE gone (note TEXT)",
        f"INSERT INTO gone VALUES ('{at.secret}')",
        "DROP TABLE gone",
    )
    notes = place.drill()
    assert [where for name, where in found_by(notes, FAILED)] == ["files of the ledger database"]
    assert "in clear in" in the_check(notes, FILES, "ledger").found


def test_a_backup_that_still_opens_because_its_epoch_lives(place: DrilledPlace) -> None:
    """The destruction is refused: that is said with the reason, and the old backup opens."""
    later = "UPDATE epochs SET rewrapped_at = rewrapped_at + 86400000000 WHERE epoch = 1"
    place.plants["back up again"] = lambda at: at.write("keyvault", later)
    notes = place.drill()
    assert the_check(notes, KEYS, "").found == "4 of 4 keys of the canary still open"
    assert "in the way: no-backup" in the_check(notes, "old epochs are destroyed", "").found
    assert "epochs-alive" in the_check(notes, "the erasure is final", "").found
    assert overall(notes.checks) == FAILED


def test_a_journal_without_the_lines(place: DrilledPlace) -> None:
    """Cut off where the erasure begins: what is left of it verifies."""

    def cut(at: DrilledPlace) -> None:
        journal = Path(at.settings.journal.removeprefix("file:"))
        lines = journal.read_bytes().splitlines(keepends=True)
        first = next(number for number, line in enumerate(lines) if b'"kind":"shred"' in line)
        journal.write_bytes(b"".join(lines[:first]))

    place.plants["destroy"] = cut
    notes = place.drill()
    found = the_check(notes, JOURNAL, "").found
    assert found.count("shredded") == 2
    assert "no line says that epoch 1 was destroyed" in found


# PostgreSQL


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    """A server of this module's own, whose files nobody else writes to."""
    with PostgresCluster() as cluster:
        yield cluster


@pytest.fixture
def on_server(cluster: PostgresCluster, tmp_path: Path) -> DrilledPlace:
    """On PostgreSQL."""
    settings = {
        "AUDIT_LEDGER_DATABASE_URL": cluster.create_database(),
        "AUDIT_LEDGER_KEYVAULT_URL": cluster.create_database(),
        "AUDIT_LEDGER_PG_DUMP": str(cluster.bin_directory / "pg_dump"),
    }
    return DrilledPlace.made(tmp_path, settings)


def test_a_dead_row_and_a_table_on_postgresql(on_server: DrilledPlace, cluster: PostgresCluster) -> None:
    """A row that was deleted is in the heap and the log, and in no table; a key that is in a table is told by its
    column."""

    def plant(at: DrilledPlace) -> None:
        assert at.exhibit is not None
        at.write(
            "ledger",
            "CREATE TABLE gone (note text)",
            f"INSERT INTO gone VALUES ('{at.secret}')",
            "DELETE FROM gone",
        )
        at.write("keyvault", f"CREATE TABLE kept AS SELECT '\\x{at.exhibit.raw_keys[0].hex()}'::bytea AS debug")

    on_server.plants["ask again"] = plant
    notes = on_server.drill(data_directories=(cluster.data_directory,))
    assert the_check(notes, TABLES, "ledger").verdict == "held"
    assert "unwrapped in kept.debug" in the_check(notes, TABLES, "keyvault").found
    files = the_check(notes, FILES, "PostgreSQL").found
    assert "a name or value of the canary in clear in" in files
    assert "pg_wal" in files
    assert "unwrapped in" in files
