"""The journal: appended by many, broken by nobody unnoticed."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyvault.errors import JournalError, KeyVaultError, VaultUnavailableError
from keyvault.journal import (
    NO_LINES,
    Journal,
    JournalEntry,
    JournalMark,
    journal_from_url,
    read,
    readable_lines,
    verify_chain,
)

KEY = Ed25519PrivateKey.from_private_bytes(b"j" * 32)
PUBLIC = KEY.public_key()


def append_ten(path: Path) -> None:
    """What each process does."""
    for n in range(10):
        Journal(path).append("shred", {"of": n}, at=n, key=KEY, after=NO_LINES)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal of three lines."""
    made = Journal(tmp_path / "journal")
    for n in range(3):
        made.append("shred", {"key_ids": [f"{n:064x}"]}, at=100 + n, key=KEY, after=NO_LINES)
    return made


def test_lines_form_a_signed_chain(journal: Journal) -> None:
    """Each line names the hash of the one before, and its signature covers all of the line but itself."""
    lines = journal.path.read_bytes().splitlines()
    previous = "0" * 64
    for n, line in enumerate(lines, start=1):
        content = json.loads(line)
        signature = bytes.fromhex(content.pop("signature"))
        unsigned = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        PUBLIC.verify(signature, b"audit-ledger v1 journal\x00" + unsigned)
        assert (n, previous, "shred") == (content["n"], content["prev"], content["kind"])
        previous = hashlib.sha256(line).hexdigest()


def test_reading_gives_back_what_was_appended(journal: Journal) -> None:
    """Every line comes back with its number, time, kind and fields."""
    lines = journal.path.read_bytes().splitlines()
    marks = [JournalMark(n, hashlib.sha256(line).digest()) for n, line in enumerate(lines, start=1)]
    expected = tuple(JournalEntry(n + 1, 100 + n, "shred", {"key_ids": [f"{n:064x}"]}, marks[n]) for n in range(3))
    assert expected == read(journal.path, PUBLIC) == journal.behind(NO_LINES, PUBLIC)
    assert journal.behind(marks[0], PUBLIC) == expected[1:]
    assert journal.behind(marks[2], PUBLIC) == ()
    for mark in marks:
        verify_chain(journal.path, mark)
        assert journal.append("shred", {}, at=1, key=KEY, after=mark).n > 3


def test_the_file_is_private(journal: Journal) -> None:
    """Nobody but the service's user can read or write the journal."""
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_altered_line_is_named(journal: Journal, at: int) -> None:
    """Whoever changes a line without the key is found out, and the error says which line and what to do."""
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[at] = lines[at].replace(f'"at":{100 + at}'.encode(), b'"at":999')
    journal.path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=rf"line {at + 1} .*put back the newest copy"):
        read(journal.path, PUBLIC)


def test_a_missing_doubled_or_moved_line_is_named(journal: Journal) -> None:
    """Lines that are all signed do not pass in another order."""
    one, two, three = journal.path.read_bytes().splitlines(keepends=True)
    for wrong in ([one, three], [two, three], [one, one, two], [one, three, two]):
        journal.path.write_bytes(b"".join(wrong))
        with pytest.raises(JournalError):
            read(journal.path, PUBLIC)


def test_another_chain_cannot_be_spliced_in(journal: Journal, tmp_path: Path) -> None:
    """A line of another journal of the same service, with the right number, does not follow the line before it."""
    other = Journal(tmp_path / "other")
    for _ in range(3):
        other.append("shred", {}, at=1, key=KEY, after=NO_LINES)
    mine, theirs = journal.path.read_bytes().splitlines(), other.path.read_bytes().splitlines()
    journal.path.write_bytes(b"\n".join([mine[0], mine[1], theirs[2], b""]))
    with pytest.raises(JournalError, match="line 3 does not follow"):
        read(journal.path, PUBLIC)


def test_a_line_of_another_key_is_refused(journal: Journal) -> None:
    """Neither reading nor appending goes on from a line that the service did not sign."""
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
    with pytest.raises(JournalError, match="line 1"):
        read(journal.path, other.public_key())
    with pytest.raises(JournalError, match="its last line"):
        journal.append("shred", {}, at=1, key=other, after=NO_LINES)
    with pytest.raises(JournalError, match="its last line"):
        journal.check(other.public_key(), NO_LINES)
    assert len(read(journal.path, PUBLIC)) == 3


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_line_that_a_crash_cut_off_is_replaced(journal: Journal, kept: int) -> None:
    """An append without its newline was never acknowledged: reading leaves it out, the next append overwrites it."""
    whole = journal.path.read_bytes()
    before, last = whole[: whole[:-1].rindex(b"\n") + 1], whole[whole[:-1].rindex(b"\n") + 1 :]
    journal.path.write_bytes(before + last[:kept])
    assert len(read(journal.path, PUBLIC)) == 2
    assert journal.append("epoch-created", {"epoch": 2}, at=7, key=KEY, after=NO_LINES).n == 3
    assert [entry.kind for entry in read(journal.path, PUBLIC)] == ["shred", "shred", "epoch-created"]


def test_a_first_line_that_was_cut_off_is_replaced(tmp_path: Path) -> None:
    """A crash in the very first append leaves an empty journal."""
    journal = Journal(tmp_path / "journal")
    journal.path.write_bytes(b'{"at":1')
    journal.check(PUBLIC, NO_LINES)
    assert journal.append("shred", {}, at=1, key=KEY, after=NO_LINES).n == 1
    assert len(read(journal.path, PUBLIC)) == 1


def test_a_line_longer_than_a_block_is_found_again(tmp_path: Path) -> None:
    """The last line is found from the end of the file, however long it is."""
    journal = Journal(tmp_path / "journal")
    for n in range(1, 4):
        assert n == journal.append("shred", {"key_ids": ["0" * 64] * 300}, at=1, key=KEY, after=NO_LINES).n
    assert len(read(journal.path, PUBLIC)) == 3


def test_threads_and_other_openers_share_one_chain(tmp_path: Path) -> None:
    """Appends at the same time, each by an opener of its own, stand one after another in one chain."""
    with ThreadPoolExecutor(8) as pool:
        marks = list(
            pool.map(
                lambda n: Journal(tmp_path / "journal").append("shred", {"of": n}, at=n, key=KEY, after=NO_LINES),
                range(40),
            )
        )
    assert list(range(1, 41)) == sorted(mark.n for mark in marks)
    assert set(range(40)) == {entry.fields["of"] for entry in read(tmp_path / "journal", PUBLIC)}


def test_processes_share_one_chain(tmp_path: Path) -> None:
    """Appends of several processes stand one after another in one chain."""
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        list(pool.map(append_ten, [tmp_path / "journal"] * 3))
    assert len(read(tmp_path / "journal", PUBLIC)) == 30


def _missing(journal: Journal) -> None:
    journal.path.unlink()


def _shorter(journal: Journal) -> None:
    journal.path.write_bytes(b"".join(journal.path.read_bytes().splitlines(keepends=True)[:2]))


def _empty(journal: Journal) -> None:
    journal.path.write_bytes(b"")


def _another(journal: Journal) -> None:
    """A journal of the same service, as long, and all signed."""
    journal.path.unlink()
    for n in range(5):
        journal.append("shred", {"key_ids": []}, at=100 + n, key=KEY, after=NO_LINES)


@pytest.mark.parametrize("harm", [_missing, _shorter, _empty, _another])
def test_a_journal_that_is_not_the_one_that_was_seen_is_never_written_to(
    journal: Journal, harm: Callable[[Journal], None]
) -> None:
    """Not appended to, not begun anew: an error says what to do, and what is there stays as it is."""
    mark = journal.behind(NO_LINES, PUBLIC)[-1].mark
    harm(journal)
    before = journal.path.read_bytes() if journal.path.exists() else None
    for use in (
        lambda: journal.append("shred", {}, at=1, key=KEY, after=mark),
        lambda: journal.check(PUBLIC, mark),
        lambda: journal.behind(mark, PUBLIC),
        lambda: verify_chain(journal.path, mark),
    ):
        with pytest.raises(JournalError, match="put back the newest copy"):
            use()
    assert (journal.path.read_bytes() if journal.path.exists() else None) == before


def test_an_alteration_deep_inside_is_found_by_the_chain(journal: Journal) -> None:
    """Appends look at the lines behind the mark only; whoever verifies the chain sees the others."""
    mark = journal.behind(NO_LINES, PUBLIC)[-1].mark
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0].replace(b'"at":100', b'"at":999') + lines[1] + lines[2])
    journal.check(PUBLIC, mark)
    with pytest.raises(JournalError, match="line 2 does not follow"):
        verify_chain(journal.path, mark)


def test_a_journal_that_is_begun_anew_keeps_the_one_before(journal: Journal) -> None:
    """Whole, under the first name that is free; and there may be none to keep."""
    whole = journal.path.read_bytes()
    lines: list[tuple[str, dict[str, object]]] = [("epoch-created", {"epoch": 1}), ("shred", {"key_ids": []})]
    for number in (1, 2):
        place, mark = journal.begin_anew(lines, at=7, key=KEY)
        assert place == journal.path.with_name(f"journal.{number}")
        assert [(line.n, line.kind) for line in read(journal.path, PUBLIC)] == [(1, "epoch-created"), (2, "shred")]
        assert journal.append("shred", {}, at=8, key=KEY, after=mark).n == 3
    first, second = journal.set_aside()
    assert first.read_bytes() == whole
    assert len(readable_lines(second, PUBLIC)) == 3
    journal.path.unlink()
    place, mark = journal.begin_anew(lines, at=7, key=KEY)
    assert (place, mark.n, len(journal.set_aside())) == (None, 2, 2)


def test_what_can_be_read_of_a_broken_journal_is_what_was_signed(journal: Journal) -> None:
    """Line by line, wherever it stands; not a file that is not there."""
    one, two, three = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(three + b"junk\n" + two.replace(b'"at":101', b'"at":999') + one + one[:20])
    assert [line.n for line in readable_lines(journal.path, PUBLIC)] == [3, 1]
    assert readable_lines(journal.path.with_name("missing"), PUBLIC) == []


def test_a_journal_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    """A missing folder is the operator's to mend, and reads as unavailable, not as a broken chain."""
    journal = Journal(tmp_path / "missing" / "journal")
    with pytest.raises(VaultUnavailableError):
        journal.append("shred", {}, at=1, key=KEY, after=NO_LINES)
    with pytest.raises(VaultUnavailableError):
        journal.check(PUBLIC, NO_LINES)
    with pytest.raises(VaultUnavailableError):
        read(journal.path, PUBLIC)


def test_the_setting_names_a_file() -> None:
    """Only file:PATH is a journal."""
    assert Path("/var/x.journal") == journal_from_url("file:/var/x.journal").path
    for wrong in ("file:", "/var/x.journal", "postgresql://u:secret@h/db"):
        with pytest.raises(KeyVaultError, match="supported is file:PATH") as raised:
            journal_from_url(wrong)
        assert "secret" not in str(raised.value)
