"""What every store of read models promises: documents and cursor move together, and readers see one moment."""

from __future__ import annotations

from uuid import UUID

import pytest

from ledger.errors import LeaseLostError
from ledger.ports import Cursor, CursorKey, CursorState, ReadModelRow
from tests.support.ledgers import Ledger, a_fact, a_visit

OURS, THEIRS = UUID(int=1), UUID(int=2)
NAME = "numbers"
MANY = 2**20


class Place:
    """One projection in a ledger of a few events."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.ledger_id = ledger.ledger_id
        self.models = ledger.deps.derived.read_models
        self.cursors = ledger.deps.derived.cursors
        ledger.append(*(a_fact(f"ward-{number}") for number in range(5)))

    def begin(self, number: int, state: CursorState = "running", *, holder: UUID = OURS) -> CursorKey:
        """A generation that somebody has leased."""
        key = CursorKey("projection", NAME, number)
        self.cursors.add_cursor(self.ledger_id, key, number, state, -1)
        self.cursors.take_cursor(self.ledger_id, key, holder, 0, 1000)
        return key

    def commit(self, key: CursorKey, old: int, new: int, *rows: ReadModelRow, holder: UUID = OURS) -> None:
        """Write documents and move."""
        self.models.commit_documents(self.ledger_id, key, holder, old, new, 1, 1001, rows)

    def take_over(self, number: int, *, holder: UUID = OURS) -> bool:
        """Take over."""
        return self.models.take_over(self.ledger_id, NAME, number, holder)

    def seen(self, key: CursorKey) -> Cursor:
        """The cursor as it is."""
        return next(one for one in self.cursors.cursors(self.ledger_id, "projection", NAME) if one.key == key)

    def listed(
        self, bucket: str | None = None, after: bytes | None = None, limit: int = 100, most_bytes: int = MANY
    ) -> list[bytes]:
        """The keys of a page that readers see."""
        page = self.models.list_documents(self.ledger_id, NAME, bucket, after, limit, most_bytes)
        assert page is not None
        return [row.key for row in page.rows]


@pytest.fixture
def place(ledger: Ledger) -> Place:
    """A ledger of five events and no projection yet."""
    return Place(ledger)


def row_of(
    key: bytes, position: int = 0, *, bucket: str = "b", body: bytes = b"sealed", key_ids: tuple[bytes, ...] = ()
) -> ReadModelRow:
    """A document."""
    return ReadModelRow(key, bucket, position, b"", key_ids, body, clear=False, provisional=False)


def test_projection_that_nobody_has_begun_has_no_documents(place: Place) -> None:
    """Nothing to read is told apart from an empty read model."""
    assert place.models.read_documents(place.ledger_id, NAME, [b"a"]) is None
    assert place.models.list_documents(place.ledger_id, NAME, None, None, 10, MANY) is None
    place.begin(1)
    page = place.models.read_documents(place.ledger_id, NAME, [b"a"])
    assert page is not None
    assert (page.cursor.position, list(page.rows)) == (-1, [])


def test_documents_come_back_as_they_were_written_with_the_leaf_of_the_log(place: Place) -> None:
    """Every member survives; the leaf is what the log has at the document's position, not what was written."""
    key = place.begin(1)
    keys = (b"\x01" * 32, b"\x02" * 32)
    written = ReadModelRow(b"a", "ward", 2, b"forged", keys, b"\x00\xff", clear=True, provisional=True)
    place.commit(key, -1, 2, written)
    found = place.models.documents(place.ledger_id, key, [b"a", b"absent"])
    leaf = place.ledger.recorded()[2].leaf_hash
    assert found == {b"a": ReadModelRow(b"a", "ward", 2, leaf, keys, b"\x00\xff", clear=True, provisional=True)}
    page = place.models.read_documents(place.ledger_id, NAME, [b"a"])
    assert page is not None
    assert list(page.rows) == [found[b"a"]]
    assert page.cursor == place.seen(key)


def test_document_is_replaced(place: Place) -> None:
    """A later commit of the same key stands in place of the former, and leaves other documents alone."""
    key = place.begin(1)
    place.commit(key, -1, 0, row_of(b"a"), row_of(b"b", bucket="x"))
    place.commit(key, 0, 3, row_of(b"b", 3, bucket="y", body=b"new"))
    found = place.models.documents(place.ledger_id, key, [b"a", b"b"])
    assert (found[b"a"].body, found[b"b"].body, found[b"b"].bucket, found[b"b"].position) == (b"sealed", b"new", "y", 3)
    assert place.listed("x") == []


def test_more_documents_than_one_statement_takes_are_written_and_read(place: Place) -> None:
    """The size of a batch is not bounded by the engine's parameters."""
    key = place.begin(1)
    rows = [row_of(number.to_bytes(4, "big")) for number in range(2500)]
    place.commit(key, -1, 0, *rows)
    assert len(place.models.documents(place.ledger_id, key, [row.key for row in rows])) == 2500


@pytest.mark.parametrize("wrong", ["holder", "position", "stopped"])
def test_commit_by_whom_the_cursor_does_not_belong_writes_nothing(place: Place, wrong: str) -> None:
    """Documents and cursor: both or neither."""
    key = place.begin(1)
    place.commit(key, -1, 0, row_of(b"a"))
    if wrong == "stopped":
        place.cursors.note_failure(place.ledger_id, key, OURS, 0, "KeyError", retry_at=0, stop=True)
    before = place.seen(key)
    holder = THEIRS if wrong == "holder" else OURS
    old = -1 if wrong == "position" else 0
    with pytest.raises(LeaseLostError):
        place.commit(key, old, 1, row_of(b"a", 1, body=b"new"), row_of(b"b", 1), holder=holder)
    assert place.seen(key) == before
    assert [row.body for row in place.models.documents(place.ledger_id, key, [b"a", b"b"]).values()] == [b"sealed"]


def test_list_goes_through_a_bucket_in_order_of_keys(place: Place) -> None:
    """Pages of any size meet without gap or double, and hold one bucket only."""
    key = place.begin(1)
    rows = [row_of(bytes((number,)), bucket="even" if number % 2 == 0 else "odd") for number in range(10)]
    place.commit(key, -1, 0, *reversed(rows))
    assert place.listed() == [row.key for row in rows]
    assert place.listed("odd", limit=2) == [b"\x01", b"\x03"]
    assert place.listed("odd", b"\x03", limit=2) == [b"\x05", b"\x07"]
    assert place.listed("odd", b"\x07", limit=2) == [b"\x09"]
    assert place.listed("none") == []


def test_page_of_large_documents_ends_early(place: Place) -> None:
    """A page stops at the document that reaches its bytes, and has one at the least."""
    key = place.begin(1)
    place.commit(key, -1, 0, *(row_of(bytes((number,)), body=bytes(1000)) for number in range(200)))
    assert len(place.listed(limit=200, most_bytes=2500)) == 3
    assert len(place.listed(limit=200, most_bytes=1)) == 1
    assert len(place.listed(limit=200, most_bytes=150_000)) == 150
    assert len(place.listed(limit=200)) == 200


def test_readers_see_the_old_generation_until_the_new_takes_over(place: Place) -> None:
    """Building goes on unseen; the take-over shows all of the new and nothing of the old."""
    old, new = place.begin(1), place.begin(2, "building")
    place.commit(old, -1, 4, row_of(b"a", body=b"old"), row_of(b"gone", body=b"old"))
    place.commit(new, -1, 4, row_of(b"a", body=b"new"))
    assert place.listed() == [b"a", b"gone"]
    assert place.take_over(2)
    assert place.listed() == [b"a"]
    page = place.models.read_documents(place.ledger_id, NAME, [b"a", b"gone"])
    assert page is not None
    assert ([row.body for row in page.rows], page.cursor.key, page.cursor.state) == ([b"new"], new, "running")
    assert place.seen(old).state == "retired"
    with pytest.raises(LeaseLostError):
        place.commit(old, 4, 5, row_of(b"a"))
    assert place.cursors.take_cursor(place.ledger_id, old, THEIRS, 10**9, 10**10) is None


def test_generation_that_is_behind_does_not_take_over(place: Place) -> None:
    """What readers see never goes back to an earlier position."""
    old, new = place.begin(1), place.begin(2, "building")
    place.commit(old, -1, 4)
    place.commit(new, -1, 3)
    assert not place.take_over(2)
    assert (place.seen(old).state, place.seen(new).state) == ("running", "building")
    place.commit(new, 3, 4)
    assert place.take_over(2)


def test_take_over_retires_what_is_earlier_and_leaves_what_is_later(place: Place) -> None:
    """Of several that are being built, an earlier one that is done does not stop a later one."""
    keys = [place.begin(1), place.begin(2, "building"), place.begin(3, "building")]
    assert place.take_over(2)
    assert [place.seen(key).state for key in keys] == ["retired", "running", "building"]


@pytest.mark.parametrize("wrong", ["holder", "running", "absent"])
def test_take_over_by_whom_the_generation_does_not_belong_changes_nothing(place: Place, wrong: str) -> None:
    """Only the holder of a generation that is being built can have it take over."""
    place.begin(1)
    place.begin(2, "running" if wrong == "running" else "building")
    before = place.cursors.cursors(place.ledger_id, "projection")
    with pytest.raises(LeaseLostError):
        place.take_over(3 if wrong == "absent" else 2, holder=THEIRS if wrong == "holder" else OURS)
    assert place.cursors.cursors(place.ledger_id, "projection") == before


def test_retired_generation_goes_in_chunks_and_its_cursor_with_the_last(place: Place) -> None:
    """Only what is retired is deleted, bit by bit, and nothing of another generation."""
    old, new = place.begin(1), place.begin(2, "building")
    place.commit(old, -1, 0, *(row_of(bytes((number,))) for number in range(5)))
    place.commit(new, -1, 0, row_of(b"a"))
    assert place.models.drop_documents(place.ledger_id, old, 3) == 0
    place.take_over(2)
    assert place.models.drop_documents(place.ledger_id, old, 3) == 3
    assert place.seen(old).state == "retired"
    assert place.models.drop_documents(place.ledger_id, old, 3) == 2
    assert [one.key for one in place.cursors.cursors(place.ledger_id, "projection")] == [new]
    assert place.models.drop_documents(place.ledger_id, old, 3) == 0
    assert place.listed() == [b"a"]


def test_documents_are_found_by_the_keys_that_went_into_them(place: Place) -> None:
    """By way of the streams with events under a key, or among all; those without the key are not named."""
    first = place.ledger.append_one(a_visit("A", actor="nurse:L"))
    second = place.ledger.append_one(a_visit("B", actor="nurse:L"))
    nurse, patient = place.ledger.key_of("nurse:L", "actor"), place.ledger.key_of("patient:A")
    key = place.begin(1)
    place.commit(
        key,
        -1,
        first.position,
        row_of(first.stream_ref, key_ids=(patient, nurse)),
        row_of(second.stream_ref, key_ids=(nurse,)),
        row_of(b"elsewhere", key_ids=(patient,)),
    )

    def under(key_ids: list[bytes], limit: int = 10, *, by_stream: bool) -> set[bytes]:
        found = place.models.documents_under(place.ledger_id, key, key_ids, limit, by_stream=by_stream)
        assert len(found) == len(set(found))
        return set(found)

    assert under([nurse], by_stream=True) == {first.stream_ref, second.stream_ref}
    assert under([patient], by_stream=True) == {first.stream_ref}
    assert under([patient], by_stream=False) == {first.stream_ref, b"elsewhere"}
    assert under([bytes(32)], by_stream=False) == set()
    assert under([], by_stream=True) == set()
    assert len(under([nurse], 1, by_stream=True)) == 1
    place.commit(key, first.position, first.position, row_of(first.stream_ref, key_ids=(nurse,)))
    assert under([patient], by_stream=True) == set()
