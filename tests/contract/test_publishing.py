"""Checkpoints never contradict each other, whoever publishes and whatever was restored; proofs verify under them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from keyvault.errors import JournalError
from keyvault.signatures import verify_ed25519
from keyvault.signed_checkpoints import SignedCheckpointFolder
from ledger.domain.checkpoints import Checkpoint, open_checkpoint, parse_checkpoint
from ledger.domain.encoding import leaf_of
from ledger.domain.merkle import (
    EMPTY_ROOT,
    hash_leaf,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from ledger.domain.notes import parse_note, signed_note
from ledger.domain.tiles import TILE_WIDTH, Tile
from ledger.errors import IntegrityError, InvalidError, NotFoundError
from ledger.services.dependencies import Dependencies
from ledger.services.proving import publishing
from ledger.services.proving.proofs import prove_event, prove_growth, prove_inclusion, root_at
from ledger.services.proving.publishing import (
    INTERVAL,
    ContradictionError,
    accept_loss,
    log_key,
    note_of,
    publish,
)
from ledger.services.proving.tiles import tile_reader
from ledger.storage import tables
from ledger.storage.transparency import SqlTransparency
from tests.support.ledgers import ORIGIN, Ledger, TestClock, a_fact
from tests.support.trees import plant_events


def grow(ledger: Ledger, count: int) -> None:
    """Append so many small events."""
    for start in range(0, count, 200):
        ledger.append(*(a_fact() for _ in range(min(200, count - start))))


def count_tiles(ledger: Ledger) -> list[int]:
    """How many tiles of each level are stored."""
    columns = tables.tiles.c
    statement = sa.select(sa.func.count()).where(columns.ledger_id == ledger.ledger_id)
    with ledger.backend.engine.connect() as connection:
        rows = connection.execute(statement.group_by(columns.level).order_by(columns.level))
        return [row[0] for row in rows]


def published(ledger: Ledger, at_least: int = 0) -> Checkpoint:
    """The newest checkpoint, verified as somebody outside does it."""
    key = log_key(ledger.deps, ledger.ledger_id)
    note = note_of(ledger.deps, publish(ledger.deps, ledger.ledger_id, at_least=at_least))
    return open_checkpoint(note, key, verify_ed25519)


def wait(ledger: Ledger) -> None:
    """Until a checkpoint is due."""
    ledger.backend.clock.now += INTERVAL


def signed_folder(ledger: Ledger) -> Path:
    """Where the last signed checkpoints are kept."""
    signed = ledger.deps.signed
    assert isinstance(signed, SignedCheckpointFolder)
    return signed.folder


def test_an_empty_ledger_has_a_checkpoint(ledger: Ledger) -> None:
    """Of size 0, with the root of the empty tree, and under the name of the ledger."""
    name = ledger.deps.store.ledger_name(ledger.ledger_id)

    assert published(ledger) == Checkpoint(f"{ORIGIN}/{name}", 0, EMPTY_ROOT)


def test_a_checkpoint_is_of_the_head(ledger: Ledger) -> None:
    """Size and root are those of the committed head, and the signature is the ledger's."""
    grow(ledger, 3)
    head = ledger.deps.store.head(ledger.ledger_id)

    checkpoint = published(ledger)

    assert (checkpoint.size, checkpoint.root) == (3, root_of(head.frontier))


def test_a_growing_ledger_is_published_once_a_second(ledger: Ledger) -> None:
    """In between the last one is given; and one that has not grown is never published again."""
    grow(ledger, 1)
    first = published(ledger)
    grow(ledger, 1)
    assert published(ledger) == first

    wait(ledger)
    second = published(ledger)
    wait(ledger)

    assert (second.size, published(ledger)) == (2, second)
    kept = ledger.deps.transparency.checkpoints(ledger.ledger_id, None, 10)
    assert [(one.size, one.root) for one in kept] == [(1, first.root), (2, second.root)]


def test_who_needs_a_checkpoint_gets_it_at_once(ledger: Ledger) -> None:
    """A proof of the newest event cannot wait for the next second."""
    grow(ledger, 1)
    published(ledger)
    grow(ledger, 1)

    assert published(ledger, at_least=2).size == 2


def test_a_clock_that_went_back_keeps_nobody_waiting(ledger: Ledger) -> None:
    """The next checkpoint does not wait for the time of the last one to come again."""
    grow(ledger, 1)
    published(ledger)
    grow(ledger, 1)
    past = replace(ledger.deps, clock=TestClock(1))

    assert publish(past, ledger.ledger_id).size == 2


def test_of_two_that_publish_at_once_one_is_published(ledger: Ledger) -> None:
    """Compare-and-swap: behind each checkpoint stands one other."""
    grow(ledger, 1)
    first = publish(ledger.deps, ledger.ledger_id)
    one, other = replace(first, size=2, note="one"), replace(first, size=3, note="other")
    transparency = ledger.deps.transparency

    assert transparency.add_checkpoint(one, after=1)
    assert transparency.add_checkpoint(one, after=1), "the same one again is no contradiction"
    assert not transparency.add_checkpoint(other, after=1)
    assert transparency.add_checkpoint(other, after=2)


def test_many_threads_publish_one_line_of_checkpoints(ledger: Ledger) -> None:
    """Sizes only grow, in the order in which they were published, and every answer is one of them."""
    grow(ledger, 1)
    answers: list[int] = []
    together = Barrier(4)

    def work() -> None:
        together.wait()
        for _ in range(5):
            grow(ledger, 1)
            answers.append(publish(ledger.deps, ledger.ledger_id, at_least=2**40).size)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    kept = [one.size for one in ledger.deps.transparency.checkpoints(ledger.ledger_id, None, 100)]
    assert len(answers) == 20
    assert set(answers) <= set(kept)
    assert published(ledger, at_least=21).size == 21
    assert not ledger.alarms


def sign_by_hand(ledger: Ledger, size: int, root: bytes) -> str:
    """A note with the ledger's own signature, of whatever somebody likes."""
    key = log_key(ledger.deps, ledger.ledger_id)
    text = Checkpoint(key.name, size, root).text
    return str(signed_note(text, key, ledger.deps.vault.sign(ledger.ledger_id, text.encode())))


def keep_signed(ledger: Ledger, note: str) -> None:
    """Put a note in the place of what was signed last."""
    name = log_key(ledger.deps, ledger.ledger_id).name
    assert ledger.deps.signed.keep(ledger.ledger_id, name, note, after=ledger.deps.signed.read(ledger.ledger_id, name))


def test_a_smaller_ledger_is_not_published(ledger: Ledger) -> None:
    """It was restored from an older copy: what is kept outside tells, though its database knows of nothing. Who asks
    again and again raises one alarm."""
    grow(ledger, 5)
    published(ledger)
    wait(ledger)
    keep_signed(ledger, sign_by_hand(ledger, 7, bytes(32)))

    for _ in range(3):
        with pytest.raises(ContradictionError, match="checkpoint of 7 was signed"):
            publish(ledger.deps, ledger.ledger_id)
    assert ledger.alarms == [(4, None, "no checkpoint is published: it has 5 events, and a checkpoint of 7 was signed")]


def test_of_two_copies_of_a_ledger_one_is_published(ledger: Ledger) -> None:
    """Another process signs another history of the same size between our look and our signature: ours is thrown
    away."""
    grow(ledger, 2)

    class Late:
        """What was signed last, of which somebody else replaces what we have just seen."""

        def read(self, ledger_id: UUID, origin: str) -> str | None:
            return ledger.deps.signed.read(ledger_id, origin)

        def keep(self, ledger_id: UUID, origin: str, note: str, *, after: str | None) -> bool:
            if after is None:
                keep_signed(ledger, sign_by_hand(ledger, 2, bytes(32)))
            return ledger.deps.signed.keep(ledger_id, origin, note, after=after)

    with pytest.raises(ContradictionError, match="signed with another root"):
        publish(replace(ledger.deps, signed=Late()), ledger.ledger_id)
    assert not ledger.deps.transparency.checkpoints(ledger.ledger_id, None, 1)


def test_another_history_is_not_published(ledger: Ledger) -> None:
    """The same number of events, or more, that are others than those of which a checkpoint was signed."""
    grow(ledger, 3)
    published(ledger)
    kept = shutil.copytree(signed_folder(ledger), signed_folder(ledger).with_name(f"kept-{uuid4()}"))
    other = ledger.backend.new_ledger()
    grow(other, 3)
    key = log_key(ledger.deps, ledger.ledger_id)
    mine = SignedCheckpointFolder(kept).read(ledger.ledger_id, key.name)
    assert mine is not None
    keep_signed(other, sign_by_hand(other, 3, parse_checkpoint(parse_note(mine).text).root))

    with pytest.raises(ContradictionError, match="with another root"):
        publish(other.deps, other.ledger_id)
    grow(other, 1)
    with pytest.raises(ContradictionError, match="first 3 events are not those"):
        publish(other.deps, other.ledger_id)


def test_a_log_under_another_name_begins_anew(ledger: Ledger) -> None:
    """The way out of a contradiction is one that everybody sees: another origin."""
    grow(ledger, 2)
    published(ledger)
    renamed = replace(ledger.deps, origin="other.example")

    assert publish(renamed, ledger.ledger_id).origin.startswith("other.example/")


def test_what_was_signed_and_not_published_is_the_beginning_of_the_next(ledger: Ledger) -> None:
    """A crash between signing and publishing: nobody has seen it, and it is not forgotten."""
    grow(ledger, 2)
    with pytest.raises(ZeroDivisionError):
        publish(replace(ledger.deps, transparency=_Broken(ledger.deps)), ledger.ledger_id)  # type: ignore[arg-type]
    assert (
        ledger.deps.transparency.latest_published(ledger.ledger_id, log_key(ledger.deps, ledger.ledger_id).name) is None
    )

    assert published(ledger).size == 2


class _Broken:
    """Breaks where a checkpoint would be published."""

    def __init__(self, deps: Dependencies) -> None:
        self._real = deps.transparency

    def __getattr__(self, name: str) -> object:
        if name == "add_checkpoint":
            raise ZeroDivisionError
        return getattr(self._real, name)


@pytest.mark.parametrize("older", [False, True], ids=["missing", "older"])
def test_what_was_signed_last_must_be_there(ledger: Ledger, older: bool) -> None:
    """A folder that is lost, or came back from an older copy, cannot tell any more what binds: publishing stops until
    somebody says that there is no newer copy, and goes on from what the database knows."""
    grow(ledger, 1)
    published(ledger)
    (path,) = signed_folder(ledger).glob(f"{ledger.ledger_id}-*")
    old = path.read_bytes()
    grow(ledger, 1)
    second = published(ledger, at_least=2)
    if older:
        path.write_bytes(old)
    else:
        path.unlink()
    grow(ledger, 1)
    wait(ledger)

    with pytest.raises(ContradictionError, match="--accept-loss"):
        publish(ledger.deps, ledger.ledger_id)
    accept_loss(ledger.deps, ledger.ledger_id)
    third = published(ledger)

    proof = prove_growth(ledger.deps, ledger.ledger_id, 2, 3).hashes
    verify_consistency(old_size=2, new_size=3, old_root=second.root, new_root=third.root, proof=proof)


def test_a_loss_is_accepted_only_where_there_is_one(ledger: Ledger) -> None:
    """What was signed and is newer than what the database knows still binds."""
    grow(ledger, 2)
    published(ledger)
    newer = sign_by_hand(ledger, 7, bytes(32))
    keep_signed(ledger, newer)

    accept_loss(ledger.deps, ledger.ledger_id)

    assert ledger.deps.signed.read(ledger.ledger_id, log_key(ledger.deps, ledger.ledger_id).name) == newer


@pytest.mark.parametrize("content", [b"x\n", b"\xff", b""])
def test_a_file_that_is_no_checkpoint_of_this_log_stops_publishing(ledger: Ledger, content: bytes) -> None:
    """Rather than to sign what may contradict it; and it says what to do."""
    published(ledger)
    (path,) = signed_folder(ledger).glob(f"{ledger.ledger_id}-*")
    path.write_bytes(content)

    with pytest.raises((JournalError, ContradictionError), match="newest copy back"):
        publish(ledger.deps, ledger.ledger_id)


def test_nobody_elses_signature_counts(ledger: Ledger) -> None:
    """A checkpoint of another ledger, or under another name, binds nobody here."""
    other = ledger.backend.new_ledger()
    grow(ledger, 1)
    keep_signed(ledger, sign_by_hand(other, 1, bytes(32)))

    with pytest.raises(ContradictionError, match="not this log's"):
        publish(ledger.deps, ledger.ledger_id)


def test_what_was_signed_is_replaced_by_who_has_seen_it(ledger: Ledger) -> None:
    """However late a slow process comes; and the same again changes nothing."""
    folder, ledger_id = SignedCheckpointFolder(signed_folder(ledger)), ledger.ledger_id

    assert folder.keep(ledger_id, "o", "one", after=None)
    assert folder.keep(ledger_id, "o", "two", after="one")
    assert folder.keep(ledger_id, "o", "two", after="one")
    assert not folder.keep(ledger_id, "o", "other", after="one")
    assert not folder.keep(ledger_id, "o", "other", after=None)
    assert (folder.read(ledger_id, "o"), folder.read(ledger_id, "p")) == ("two", None)


def test_who_needs_nothing_new_does_not_wait_for_who_publishes(ledger: Ledger) -> None:
    """A thread that waits for witnesses keeps nobody from the last checkpoint."""
    grow(ledger, 1)
    first = published(ledger)
    grow(ledger, 1)
    wait(ledger)

    with publishing._flight(ledger.ledger_id, wait=False) as ours:
        assert ours
        assert published(ledger) == first
    assert published(ledger).size == 2


@pytest.mark.parametrize("size", [1, 255, 256, 257, 600])
def test_every_event_has_a_proof(ledger: Ledger, size: int) -> None:
    """In a tree of any shape; full tiles are stored, and the rest is read from the events."""
    grow(ledger, size)
    checkpoint = published(ledger)
    events = ledger.recorded()
    proofs = prove_inclusion(ledger.deps, ledger.ledger_id, range(size), size)

    for event in events:
        leaf_hash, index = hash_leaf(leaf_of(event)), event.position
        verify_inclusion(index=index, size=size, leaf_hash=leaf_hash, proof=proofs[index], root=checkpoint.root)
    assert count_tiles(ledger) == ([size // TILE_WIDTH] if size >= TILE_WIDTH else [])


def test_the_proof_of_one_event_is_a_file(ledger: Ledger) -> None:
    """With the leaf, under a checkpoint that is published for it."""
    grow(ledger, 2)
    published(ledger)
    grow(ledger, 1)
    event = ledger.recorded()[2]

    proof = prove_event(ledger.deps, ledger.ledger_id, event.envelope.event_id)

    checkpoint = open_checkpoint(proof.checkpoint, log_key(ledger.deps, ledger.ledger_id), verify_ed25519)
    assert (proof.index, checkpoint.size, proof.extra) == (2, 3, leaf_of(event))
    verify_inclusion(index=2, size=3, leaf_hash=event.leaf_hash, proof=proof.hashes, root=checkpoint.root)


def test_an_event_that_was_altered_has_no_proof(ledger: Ledger) -> None:
    """Neither has one that is not there."""
    grow(ledger, 2)
    event = ledger.recorded()[1]
    ledger.edit(1, schema_version=9)

    with pytest.raises(IntegrityError, match="position 1"):
        prove_event(ledger.deps, ledger.ledger_id, event.envelope.event_id)
    with pytest.raises(NotFoundError):
        prove_event(ledger.deps, ledger.ledger_id, uuid4())


def test_altered_leaves_are_not_signed(ledger: Ledger) -> None:
    """A checkpoint is of the tree that the rows make; what does not fit is told, and not published."""
    grow(ledger, 300)
    ledger.edit(17, leaf_hash=bytes(32))

    with pytest.raises(ContradictionError, match="not those that its tree was built from"):
        publish(ledger.deps, ledger.ledger_id)


@pytest.mark.parametrize("what", ["altered", "too early", "too late"])
def test_strange_tiles_are_made_again(ledger: Ledger, what: str) -> None:
    """They are derived: what a hand has done to them is told, and stops nothing."""
    grow(ledger, 300 if what == "altered" else 3)
    published(ledger)
    mine = tables.tiles.c.ledger_id == ledger.ledger_id
    if what == "altered":
        ledger.backend.execute(sa.update(tables.tiles).where(mine).values(root=bytes(32), hashes=bytes(8192)))
    else:
        row = {"ledger_id": ledger.ledger_id, "level": 0, "number": 0 if what == "too early" else 10**6}
        ledger.backend.execute(sa.insert(tables.tiles).values(**row, root=bytes(32), hashes=bytes(8192)))
    grow(ledger, 300)
    wait(ledger)

    checkpoint = published(ledger)

    first = ledger.recorded()[0]
    proof = prove_event(ledger.deps, ledger.ledger_id, first.envelope.event_id)
    verify_inclusion(index=0, size=checkpoint.size, leaf_hash=first.leaf_hash, proof=proof.hashes, root=checkpoint.root)
    assert bool(ledger.alarms) == (what == "altered")


def test_what_was_read_while_it_was_altered_is_not_remembered_for_good(ledger: Ledger) -> None:
    """A proof that does not verify is not given, with an alarm; and once all is right again, there is one."""
    grow(ledger, 5)
    published(ledger)
    first, second = ledger.recorded()[:2]
    # Another process, which has read nothing of the tree yet.
    deps = replace(ledger.deps, transparency=SqlTransparency(ledger.backend.engine))
    ledger.edit(1, leaf_hash=bytes(32))
    with pytest.raises(IntegrityError, match="not in the tree that was published"):
        prove_event(deps, ledger.ledger_id, first.envelope.event_id)
    assert (0, None, "no proof leads from the event to what was published") in ledger.alarms
    ledger.edit(1, leaf_hash=second.leaf_hash)

    assert prove_event(deps, ledger.ledger_id, first.envelope.event_id).index == 0


@pytest.mark.parametrize("column", ["note", "root"])
def test_a_stored_checkpoint_that_was_altered_is_not_handed_out(ledger: Ledger, column: str) -> None:
    """With an alarm."""
    grow(ledger, 1)
    published(ledger)
    columns = tables.checkpoints.c
    altered = sa.update(tables.checkpoints).where(columns.ledger_id == ledger.ledger_id)
    ledger.backend.tamper(altered.values({column: "garbage" if column == "note" else bytes(32)}))

    with pytest.raises(IntegrityError):
        note_of(ledger.deps, publish(ledger.deps, ledger.ledger_id))
    assert ledger.alarms


def test_a_stored_cosignature_that_is_none_is_left_out(ledger: Ledger) -> None:
    """Else nobody could read the checkpoint."""
    grow(ledger, 1)
    checkpoint = publish(ledger.deps, ledger.ledger_id)
    place = (ledger.ledger_id, checkpoint.origin, checkpoint.size)
    for name, line in (("a", "garbage"), ("w", "— w AAAAAAA=\n")):
        ledger.deps.transparency.add_cosignature(*place, name=name, line=line, timestamp=1)

    note = note_of(ledger.deps, publish(ledger.deps, ledger.ledger_id))

    assert note == checkpoint.note + "— w AAAAAAA=\n"
    assert [alarm[2] for alarm in ledger.alarms] == ["a stored cosignature of 1 events is none"]


def test_growth_is_proven_between_any_two_sizes(ledger: Ledger) -> None:
    """Up to the newest checkpoint, which is the default."""
    grow(ledger, 300)
    newest = published(ledger)

    for old, new in ((1, 2), (255, 256), (256, 300), (299, None), (300, 300)):
        proof = prove_growth(ledger.deps, ledger.ledger_id, old, new)
        old_root, new_root = (root_at(ledger.deps, ledger.ledger_id, size) for size in (old, proof.new))
        verify_consistency(old_size=old, new_size=proof.new, old_root=old_root, new_root=new_root, proof=proof.hashes)
    assert prove_growth(ledger.deps, ledger.ledger_id, 0, None).hashes == []
    assert root_at(ledger.deps, ledger.ledger_id, 300) == newest.root


@pytest.mark.parametrize(("old", "new"), [(2, 1), (0, 4), (4, None), (-1, 1)])
def test_sizes_that_were_not_published_have_no_proof(ledger: Ledger, old: int, new: int | None) -> None:
    """The error says which there are."""
    grow(ledger, 3)

    with pytest.raises(InvalidError) as refused:
        prove_growth(ledger.deps, ledger.ledger_id, old, new)
    assert refused.value.faults[0].message == "must be 0 ≤ from ≤ to ≤ 3"


def test_tiles_beyond_the_tree_are_not_read(ledger: Ledger) -> None:
    """Neither a tile that is not there, nor more of one than there is."""
    grow(ledger, 3)
    published(ledger)
    read = tile_reader(ledger.deps, ledger.ledger_id, 2)

    assert len(read([Tile(0, 0, 2)])[Tile(0, 0, 2)]) == 64
    for tile in (Tile(0, 0, 3), Tile(0, 0, 256), Tile(0, 1, 1), Tile(1, 0, 1)):
        with pytest.raises(ValueError, match="not in a tree"):
            read([tile])


def test_two_levels_of_tiles_are_stored_and_read(ledger: Ledger) -> None:
    """A tree of more than 65,536 leaves: its proofs read stored tiles and the right edge."""
    size = TILE_WIDTH**2 + 2 * TILE_WIDTH + 3
    grow(ledger, 1)
    first = ledger.recorded()[0]
    planted = plant_events(ledger.backend.engine, first, size)
    hashes = [first.leaf_hash, *(event.leaf_hash for event in planted)]

    checkpoint = published(ledger)

    assert count_tiles(ledger) == [258, 1]
    indices = (0, 255, 256, TILE_WIDTH**2 - 1, TILE_WIDTH**2, size - 1)
    proofs = prove_inclusion(ledger.deps, ledger.ledger_id, indices, size)
    for index in indices:
        verify_inclusion(index=index, size=size, leaf_hash=hashes[index], proof=proofs[index], root=checkpoint.root)


def test_the_worker_publishes_less_often_than_those_who_ask(ledger: Ledger) -> None:
    """Unasked every three seconds at most; whoever asks gets what is a second old, and what it needs at once."""
    deps, clock, sizes = ledger.deps, ledger.backend.clock, []
    for pause, publishes in ((0, True), (1_500_000, False), (1_600_000, True), (0, False), (-9_000_000, True)):
        ledger.append(a_fact())
        clock.now += pause
        publishing.step(deps, ledger.ledger_id)
        last = deps.transparency.latest_published(ledger.ledger_id, publishing.log_name(deps, ledger.ledger_id))
        assert last is not None
        assert (last.size == ledger.size()) == publishes
        sizes.append(last.size)
    assert sizes == [1, 1, 3, 3, 5]
    ledger.append(a_fact())
    clock.now += 1_500_000
    assert publish(deps, ledger.ledger_id).size == 6
