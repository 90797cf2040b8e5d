"""Checkpoints never contradict each other, whoever publishes and whatever was restored; proofs verify under them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from uuid import uuid4

import pytest
import sqlalchemy as sa

from keyvault.errors import JournalError
from keyvault.signatures import verify_ed25519
from keyvault.signed_checkpoints import SignedCheckpointFolder
from ledger.domain.checkpoints import Checkpoint, open_checkpoint
from ledger.domain.encoding import leaf_of
from ledger.domain.merkle import (
    EMPTY_ROOT,
    hash_leaf,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from ledger.domain.tiles import TILE_WIDTH, Tile
from ledger.errors import IntegrityError, InvalidError, NotFoundError
from ledger.services.dependencies import Dependencies
from ledger.services.proving.proofs import prove_event, prove_growth, prove_inclusion, root_at
from ledger.services.proving.publishing import INTERVAL, ContradictionError, log_key, note_of, publish
from ledger.services.proving.tiles import tile_reader
from ledger.storage import tables
from tests.support.ledgers import ORIGIN, Ledger, TestClock, a_fact
from tests.support.trees import plant_events


def grow(ledger: Ledger, count: int) -> None:
    """Append so many small events."""
    for start in range(0, count, 200):
        ledger.append(*(a_fact() for _ in range(min(200, count - start))))


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


def forget_signed(ledger: Ledger) -> None:
    """As if there were nothing outside of the database."""
    for path in signed_folder(ledger).glob(f"{ledger.ledger_id}-*"):
        path.unlink()


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


def test_a_smaller_ledger_is_not_published(ledger: Ledger) -> None:
    """It was restored from an older copy: what is kept outside tells, though its database knows of nothing."""
    grow(ledger, 5)
    published(ledger)
    wait(ledger)
    outside = SignedCheckpointFolder(signed_folder(ledger))
    note = Checkpoint(f"{ORIGIN}/x", 7, bytes(32)).text + "\n— x AAAAAAA=\n"
    outside.keep(ledger.ledger_id, log_key(ledger.deps, ledger.ledger_id).name, 7, note)

    with pytest.raises(ContradictionError, match="checkpoint of 7 was signed"):
        publish(ledger.deps, ledger.ledger_id)
    assert ledger.alarms == [(4, None, "no checkpoint is published: it has 5 events, and a checkpoint of 7 was signed")]


def test_another_history_is_not_published(ledger: Ledger) -> None:
    """The same number of events, or more, that are others than those of which a checkpoint was signed."""
    grow(ledger, 3)
    published(ledger)
    kept = shutil.copytree(signed_folder(ledger), signed_folder(ledger).with_name(f"kept-{uuid4()}"))
    other = ledger.backend.new_ledger()
    grow(other, 3)
    key, other_key = (log_key(one.deps, one.ledger_id) for one in (ledger, other))
    mine = SignedCheckpointFolder(kept).read(ledger.ledger_id, key.name)
    assert mine is not None
    other.deps.signed.keep(other.ledger_id, other_key.name, *mine)

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


def test_a_lost_folder_is_begun_anew_from_what_the_database_knows(ledger: Ledger) -> None:
    """The checkpoints in the database still bind."""
    grow(ledger, 2)
    first = published(ledger)
    forget_signed(ledger)
    grow(ledger, 1)
    wait(ledger)

    second = published(ledger)

    proof = prove_growth(ledger.deps, ledger.ledger_id, 2, 3).hashes
    verify_consistency(old_size=2, new_size=3, old_root=first.root, new_root=second.root, proof=proof)
    assert ledger.deps.signed.read(ledger.ledger_id, second.origin) is not None


def test_a_file_that_cannot_be_read_stops_publishing(ledger: Ledger) -> None:
    """Rather than to sign what may contradict it; and it says what to do."""
    published(ledger)
    (path,) = signed_folder(ledger).glob(f"{ledger.ledger_id}-*")
    path.write_bytes(b"x\n")

    with pytest.raises(JournalError, match="put its copy back"):
        publish(ledger.deps, ledger.ledger_id)


def test_nothing_signed_is_replaced_by_something_smaller(ledger: Ledger) -> None:
    """However late a slow process comes."""
    folder = SignedCheckpointFolder(signed_folder(ledger))
    folder.keep(ledger.ledger_id, "o", 7, "seven")
    folder.keep(ledger.ledger_id, "o", 6, "six")

    assert folder.read(ledger.ledger_id, "o") == (7, "seven")
    assert folder.read(ledger.ledger_id, "p") is None


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
    assert ledger.deps.transparency.count_tiles(ledger.ledger_id).get(0, 0) == size // TILE_WIDTH


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


def test_an_altered_tile_is_noticed(ledger: Ledger) -> None:
    """The next checkpoint is not published over it."""
    grow(ledger, 300)
    published(ledger)
    mine = tables.tiles.c.ledger_id == ledger.ledger_id
    ledger.backend.execute(sa.update(tables.tiles).where(mine).values(root=bytes(32)))
    grow(ledger, 1)
    wait(ledger)

    with pytest.raises(ContradictionError, match="stored tiles"):
        publish(ledger.deps, ledger.ledger_id)


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

    assert ledger.deps.transparency.count_tiles(ledger.ledger_id) == {0: 258, 1: 1}
    indices = (0, 255, 256, TILE_WIDTH**2 - 1, TILE_WIDTH**2, size - 1)
    proofs = prove_inclusion(ledger.deps, ledger.ledger_id, indices, size)
    for index in indices:
        verify_inclusion(index=index, size=size, leaf_hash=hashes[index], proof=proofs[index], root=checkpoint.root)
