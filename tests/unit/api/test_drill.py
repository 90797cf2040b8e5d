"""The pure parts of a drill: what is looked for, how it is told in bytes and rows, verdicts, and the page."""

from __future__ import annotations

import base64
import secrets
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.backups import BackupError
from api.drill import verdicts
from api.drill.checks import BLIND, FAILED, HELD, NOT_LOOKED_AT, Check, judged, overall, unseen
from api.drill.file_search import kinds_in
from api.drill.files import FileSearch
from api.drill.looking import SERVERS, Answer, FileGroup, Openings, Sight
from api.drill.marks import Marks, forms_of
from api.drill.page import render_page
from api.drill.places import backup_rows, rows_of_dump
from api.drill.searching import Found, Kind, Quarry, Row, search_rows

KEY = bytes(range(100, 132))
WRAP = b"\x01" + bytes(range(60))
QUARRY = Quarry(
    {
        "word": (b"a-word-of-the-canary",),
        "key": tuple(forms_of(KEY)),
        "wrap": (WRAP[1:25], WRAP[1:25].hex().encode()),
        "part": (b"a-sealed-part",),
        "id": (b"id-of-the-canary",),
    },
    (WRAP,),
)
SEEING = Found(looked=9)
for _kind in ("part", "wrap", "id"):
    SEEING.note(_kind, "there")


# What is looked for


def test_no_two_drills_have_a_word_in_common() -> None:
    """The run's word stands in every name and value that is personal, and in nothing else."""
    one, other = Marks.fresh(), Marks.fresh()
    assert all(one.run in word for word in (one.subject, one.stream, *one.values))
    assert one.run not in one.duty + one.beside
    assert set(one.hashes()).isdisjoint(other.hashes())
    assert len(set(one.values)) == len(one.values) == 4
    assert one.run not in repr(one)


@given(st.binary(min_size=0, max_size=7), st.binary(min_size=0, max_size=7))
def test_a_key_is_told_in_whatever_form_it_stands(before: bytes, behind: bytes) -> None:
    """Raw, in hexadecimal, in base64 of any alignment and alphabet, as Python shows bytes, and cut in half."""
    amid = before + KEY + behind
    shown = [
        amid,
        amid.hex().encode(),
        amid.hex().upper().encode(),
        base64.b64encode(amid),
        base64.urlsafe_b64encode(amid),
        repr(KEY).encode(),
        KEY[:16] + b"the end of a page",
        b"the start of one" + KEY[16:],
    ]
    forms = forms_of(KEY)
    assert all(any(form in text for form in forms) for text in shown)


def test_what_is_random_is_not_taken_for_it() -> None:
    """No form is so short that it could come about by chance."""
    assert min(map(len, forms_of(KEY))) >= 16
    assert not any(form in secrets.token_bytes(2**20) for form in forms_of(KEY))


# Rows


def test_a_row_is_told_with_its_column() -> None:
    """Among many that hold nothing, wherever in a value it stands."""
    empty = [Row("events", ("a", "b"), (b"1", b"nothing"))] * 1000
    found = search_rows([*empty, Row("notes", ("a", "b"), (b"2", b"x" + KEY + b"y")), *empty], QUARRY)
    assert found.looked == 2001
    assert found.faults("word", "key") == ["a data key of the canary, unwrapped in notes.b"]


def test_what_could_be_a_wrapped_key_is_collected_from_rows_about_the_canary() -> None:
    """Also one that was rewrapped, whose bytes nobody knows; not those of others, and nothing that is no wrap."""
    rewrapped, others = b"\x02" + bytes(60), b"\x01" + b"o" * 60
    rows = [
        Row("kept", ("id", "blob", "text"), (b"id-of-the-canary", rewrapped, b"short")),
        Row("copied", ("blob",), (WRAP,)),
        Row("kept", ("id", "blob"), (b"id of another", others)),
    ]
    assert search_rows(rows, QUARRY).wraps == {rewrapped, WRAP}


def test_a_dump_is_read_as_rows() -> None:
    """Binary columns decoded, as they would be restored; every other line is looked at as well."""
    dump = (
        b"-- a comment of a-word-of-the-canary\n"
        b'COPY public.kept ("id", wrapped_dek, note) FROM stdin;\n'
        b"7\t\\\\x" + WRAP.hex().encode() + b"\t\\N\n"
        b"\\.\n"
        b"COPY public.other (a) FROM stdin;\n\\.\n"
        b"SELECT 1;\n"
    )
    rows = list(rows_of_dump(dump.splitlines(keepends=True)))
    assert [(row.table, list(row.columns), list(row.values)) for row in rows if row.columns] == [
        ("kept", ["id", "wrapped_dek", "note"], [b"7", WRAP, b"\\N"])
    ]
    found = search_rows(rows, QUARRY)
    assert found.places == {"word": {"the dump itself"}, "wrap": {"kept.wrapped_dek"}}
    assert found.wraps == {WRAP}


def test_an_sqlite_file_is_read_as_rows(tmp_path: Path) -> None:
    """Tables of any name, values of any type; a file that is none is an error, not an empty database."""
    path = tmp_path / "kept.db"
    connection = sqlite3.connect(path)
    connection.execute('CREATE TABLE "odd ""name" (a, b, c, d)')
    connection.execute('INSERT INTO "odd ""name" VALUES (?, ?, ?, ?)', (WRAP, "a-word-of-the-canary", 7, None))
    connection.commit()
    connection.close()
    with backup_rows(path, "pg_dump") as rows:
        found = search_rows(rows, QUARRY)
    assert found.places == {"wrap": {'odd "name.a'}, "word": {'odd "name.b'}}
    (tmp_path / "none.db").write_bytes(b"x" * 4096)
    with pytest.raises(BackupError), backup_rows(tmp_path / "none.db", "pg_dump") as rows:
        search_rows(rows, QUARRY)


@pytest.mark.parametrize("block", [1, 7, 64, 2**24])
def test_a_file_is_looked_into_across_blocks(tmp_path: Path, block: int) -> None:
    """However it is read."""
    path = tmp_path / "heap"
    path.write_bytes(bytes(100) + KEY + bytes(100))
    assert kinds_in(path, {str(kind): forms for kind, forms in QUARRY.forms.items()}, block) == {"key"}


# Verdicts


def test_the_worst_check_decides() -> None:
    """And no check at all shows nothing."""
    held, missing = judged("a", "b", faults=(), held="all"), unseen("a", "b", "why")
    failed = judged("a", "b", faults=["this"], held="all")
    assert [check.verdict for check in (held, missing, failed)] == [HELD, NOT_LOOKED_AT, FAILED]
    assert overall([held, held]) == HELD
    assert overall([held, missing]) == NOT_LOOKED_AT
    assert overall([missing, failed, held]) == FAILED
    assert overall([]) == FAILED


def sight(*, live: Found = SEEING, backup: Found = SEEING, files: Found = SEEING) -> Sight:
    """The same was seen in both databases."""
    names = ("ledger", "keyvault")
    return Sight(dict.fromkeys(names, live), dict.fromkeys(names, backup), {"files": FileSearch(files, ())})


def openings(number: int, documents: tuple[str, ...] = (), *, beside: bool = True) -> Openings:
    """That many keys and parts open."""
    return Openings(number, number, number, documents, beside)


WARM = {"reader": {"query": Answer(ever_clear=True, always_clear=True, always_erased=False)}}
COLD = {"reader": {"query": Answer(ever_clear=False, always_clear=False, always_erased=True)}}
ALL_OPEN, NONE_OPEN = openings(4, ("snapshot", "read model")), openings(0)
GROUPS = [FileGroup("files", (Path("x"),), ("wrap",))]
NOTHING = Found(looked=9)
BLIND_CHECKS: dict[str, list[Check]] = {
    "answers": verdicts.of_answers(COLD, COLD),
    "export": [verdicts.of_export(clear=False)],
    "tables": verdicts.of_tables(sight(live=NOTHING), sight(live=NOTHING)),
    "backups": verdicts.of_backups(sight(backup=NOTHING), sight(backup=NOTHING)),
    "files": verdicts.of_files(GROUPS, sight(files=NOTHING), sight(files=NOTHING)),
    "keys": verdicts.of_openings(4, openings(3, ("snapshot", "read model")), NONE_OPEN, destroyed=True)[:1],
    "parts": verdicts.of_openings(4, ALL_OPEN, openings(0, beside=False), destroyed=True)[1:2],
    "documents": verdicts.of_openings(4, openings(4, ("snapshot",)), NONE_OPEN, destroyed=True)[2:],
}


@pytest.mark.parametrize("search", BLIND_CHECKS)
def test_a_search_that_saw_nothing_before_fails(search: str) -> None:
    """Whatever it says that it did not find afterwards."""
    checks = BLIND_CHECKS[search]
    assert checks
    assert all(check.verdict == FAILED and check.found.startswith(BLIND) for check in checks), checks


def test_what_was_seen_before_and_is_gone_has_held() -> None:
    """The same searches, with their positive controls met."""
    after = Found(looked=9)
    after.note("part", "events.sealed")
    checks = [
        *verdicts.of_answers(WARM, COLD),
        verdicts.of_export(clear=True),
        *verdicts.of_tables(sight(), sight(live=after)),
        *verdicts.of_backups(sight(), sight()),
        *verdicts.of_files(GROUPS, sight(), sight()),
        *verdicts.of_openings(4, ALL_OPEN, NONE_OPEN, destroyed=True),
    ]
    assert {check.verdict for check in checks} == {HELD}
    assert all(check.control for check in checks)


@pytest.mark.parametrize("kind", ["word", "key"])
def test_a_secret_that_stood_there_before_the_erasure_counts_too(kind: Kind) -> None:
    """I5: of somebody who lives nothing stands in clear, either."""
    leaked = Found(looked=9)
    for one in ("part", "wrap", kind):
        leaked.note(one, "there")
    assert {check.verdict for check in verdicts.of_tables(sight(live=leaked), sight())} == {FAILED}
    assert {check.verdict for check in verdicts.of_files(GROUPS, sight(files=leaked), sight())} == {FAILED}


def test_what_nobody_could_look_at_is_no_success() -> None:
    """Data directories that were not given, files that may not be read, and KEKs that live on."""
    (ungiven,) = verdicts.of_files([FileGroup(SERVERS, (), ("part",))], sight(), sight())
    closed = Sight({}, {}, {"files": FileSearch(SEEING, ("/var/lib/postgresql/base",))})
    (unreadable,) = verdicts.of_files(GROUPS, sight(), closed)
    alive = verdicts.of_openings(4, ALL_OPEN, ALL_OPEN, destroyed=False)[:2]
    assert {check.verdict for check in (ungiven, unreadable, *alive)} == {NOT_LOOKED_AT}
    assert "/var/lib/postgresql/base" in unreadable.found


# The page


def test_the_page_escapes_what_it_shows() -> None:
    """Paths and messages can hold anything."""
    check = {"name": "<b>", "where": "a&b", "verdict": FAILED, "found": '"><script>alert(1)</script>', "control": ""}
    payload = {
        "verdict": FAILED,
        "ledger_id": None,
        "subject_ref": None,
        "key_ids": [],
        "marks_sha256": [],
        "erasure_ids": [],
        "steps": [{"name": "<record>", "began_at": "2026-01-01T00:00:00Z", "microseconds": 1500}],
        "checks": [check],
        "told": [{"name": "<i>", "text": "</td>"}],
        "backups": ["<b>.db"],
        "versions": {"python": "<3>"},
        "settings": {"journal": "file:/<j>", "without_destruction": True},
        "written_at": "<now>",
    }
    page = render_page({"payload": payload, "signature": None})
    assert "<script" not in page
    assert "no KEK destroyed" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for text in ("<b>", "<i>", "<record>", "<3>", "<j>", "<now>"):
        assert text not in page
