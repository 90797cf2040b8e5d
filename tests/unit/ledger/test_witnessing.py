"""A witness cosigns one history of each log, and says of everything else why not."""

from __future__ import annotations

from hashlib import sha256
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault.signatures import SigningKey, verify_ed25519
from ledger.domain.checkpoints import Checkpoint
from ledger.domain.merkle import EMPTY_ROOT, extend_frontier, hash_leaf, root_of
from ledger.domain.notes import (
    COSIGNATURE,
    ED25519,
    NOTE_BYTES,
    Note,
    NoteSignature,
    VerifierKey,
    parse_note,
    signed_note,
)
from ledger.domain.tiles import consistency_proof
from ledger.domain.witnessing import (
    BODY_BYTES,
    NOTHING_SEEN,
    RefusalError,
    Seen,
    check_signatures,
    decide,
    format_add_checkpoint,
    parse_add_checkpoint,
)
from tests.support.tiled_trees import Tree

LOG = SigningKey.generate()
KEY = VerifierKey("log.example/test", ED25519, LOG.public_key)
SIZES = st.integers(0, 700)


def checkpoint_of(tree: Tree, size: int) -> str:
    """The signed checkpoint of a tree's first leaves."""
    text = Checkpoint(KEY.name, size, tree.root(size)).text
    return str(signed_note(text, KEY, LOG.sign(text.encode())))


def request_of(tree: Tree, old: int, new: int) -> bytes:
    """An honest request."""
    return format_add_checkpoint(old, tree.consistency(old, new), checkpoint_of(tree, new))


def refused(body: bytes, seen: Seen = NOTHING_SEEN) -> RefusalError:
    """How the witness refuses this."""
    with pytest.raises(RefusalError) as caught:
        witness(body, seen)
    return caught.value


def witness(body: bytes, seen: Seen = NOTHING_SEEN) -> Seen:
    """All checks."""
    request = parse_add_checkpoint(body)
    check_signatures(request, [KEY] if request.checkpoint.origin == KEY.name else [], verify_ed25519)
    return decide(seen, request)


TREE = Tree(f"leaf {number}".encode() for number in range(700))
FORK = Tree(f"leaf {number if number < 300 else -number}".encode() for number in range(700))


@given(st.lists(SIZES, min_size=1, max_size=6).map(sorted))
def test_a_log_that_only_grows_is_cosigned_at_every_size(sizes: list[int]) -> None:
    """From nothing to any size, from size to size, and again at the same size."""
    seen = NOTHING_SEEN
    for size in sizes:
        seen = witness(request_of(TREE, seen.size, size), seen)
        assert seen == Seen(size, TREE.root(size))


@given(SIZES, SIZES)
def test_another_history_is_never_cosigned(old: int, new: int) -> None:
    """Whatever honest proof within the other tree comes along; before the fork both are the same."""
    seen = Seen(max(old, 301), TREE.root(max(old, 301)))
    new = max(new, seen.size)
    assert refused(request_of(FORK, seen.size, new), seen).status == HTTPStatus.UNPROCESSABLE_ENTITY
    for proof in ((), TREE.consistency(seen.size, new)):
        body = format_add_checkpoint(seen.size, proof, checkpoint_of(FORK, new))
        assert refused(body, seen).status == HTTPStatus.UNPROCESSABLE_ENTITY


@given(SIZES, SIZES, SIZES)
def test_another_old_size_is_told_the_right_one(size: int, old: int, new: int) -> None:
    """409 with the size that was cosigned last, also for a log that is new here; a shrinking request is a 400."""
    seen = Seen(size, TREE.root(size))
    if old == size:
        old += 1
    refusal = refused(format_add_checkpoint(old, (), checkpoint_of(TREE, new)), seen)
    expected = (HTTPStatus.BAD_REQUEST, None) if old > new else (HTTPStatus.CONFLICT, size)
    assert (refusal.status, refusal.size) == expected


@given(SIZES.filter(bool), st.data())
def test_an_altered_proof_is_refused(old: int, data: st.DataObject) -> None:
    """A hash changed, left out or added."""
    new = data.draw(st.integers(old, 700))
    proof = TREE.consistency(old, new)
    at = data.draw(st.integers(0, len(proof)))
    spare = sha256(b"spare").digest()
    ways = [[*proof[:at], spare, *proof[at:]]]
    if at < len(proof):
        ways += [[*proof[:at], *proof[at + 1 :]], [*proof[:at], spare, *proof[at + 1 :]]]
    body = format_add_checkpoint(old, data.draw(st.sampled_from(ways)), checkpoint_of(TREE, new))
    assert refused(body, Seen(old, TREE.root(old))).status == HTTPStatus.UNPROCESSABLE_ENTITY


def test_the_empty_tree_has_one_root() -> None:
    """422 for another one, and for a proof from the empty tree."""
    text = Checkpoint(KEY.name, 0, sha256(b"x").digest()).text
    false = str(signed_note(text, KEY, LOG.sign(text.encode())))
    assert refused(format_add_checkpoint(0, (), false)).status == HTTPStatus.UNPROCESSABLE_ENTITY
    proved = format_add_checkpoint(0, [EMPTY_ROOT], checkpoint_of(TREE, 5))
    assert refused(proved).status == HTTPStatus.UNPROCESSABLE_ENTITY


def test_a_stranger_is_told_404_and_a_false_signature_403() -> None:
    """Before anything of what the witness has seen is told."""
    stranger = VerifierKey("log.example/other", ED25519, LOG.public_key)
    text = Checkpoint(stranger.name, 1, TREE.root(1)).text
    by_stranger = str(signed_note(text, stranger, LOG.sign(text.encode())))
    assert refused(format_add_checkpoint(0, (), by_stranger)).status == HTTPStatus.NOT_FOUND
    text = Checkpoint(KEY.name, 1, TREE.root(1)).text
    for note in (
        signed_note(text, KEY, bytes(64)),
        signed_note(text, KEY, b"short"),
        signed_note(text, stranger, LOG.sign(text.encode())),
        signed_note(text, VerifierKey(KEY.name, COSIGNATURE, LOG.public_key), LOG.sign(text.encode())),
    ):
        assert refused(format_add_checkpoint(9, (), str(note))).status == HTTPStatus.FORBIDDEN


def test_of_the_signatures_only_those_of_trusted_keys_are_looked_at_and_kept() -> None:
    """Others may stand there; one that says to be by a trusted key and is not spoils the note."""
    text = Checkpoint(KEY.name, 1, TREE.root(1)).text
    good = signed_note(text, KEY, LOG.sign(text.encode())).signatures
    other = signed_note(text, VerifierKey("other", ED25519, bytes(32)), bytes(64)).signatures
    false = signed_note(text, KEY, bytes(64)).signatures
    body = format_add_checkpoint(0, (), str(Note(text, other + good)))
    assert check_signatures(parse_add_checkpoint(body), [KEY], verify_ed25519) == Note(text, good)
    spoilt = format_add_checkpoint(0, (), str(Note(text, good + false)))
    assert refused(spoilt).status == HTTPStatus.FORBIDDEN


def test_sixteen_signatures_and_extension_lines_are_taken() -> None:
    """As many as the specification asks for, with the log's at the end."""
    text = Checkpoint(KEY.name, 1, TREE.root(1), ("an extension",)).text
    good = signed_note(text, KEY, LOG.sign(text.encode())).signatures
    others = [signed_note(text, VerifierKey(f"w{n}", ED25519, bytes(32)), bytes(5000)).signatures for n in range(9)]
    few = [signed_note(text, VerifierKey(f"v{n}", ED25519, bytes(32)), bytes(64)).signatures for n in range(6)]
    note = Note(text, (*(line for lines in (*others, *few) for line in lines), *good))
    assert witness(format_add_checkpoint(0, (), str(note))).size == 1


GOOD = request_of(TREE, 3, 7)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n",
        GOOD.replace(b"old 3", b"old 03"),
        GOOD.replace(b"old 3", b"old -3"),
        GOOD.replace(b"old 3", b"old"),
        GOOD.replace(b"old 3", b"old  3"),
        GOOD.replace(b"old 3", b"size 3"),
        GOOD.replace(b"old 3\n", b""),
        GOOD.replace(b"old 3\n", b"old 3\r\n"),
        GOOD.replace(b"old 3\n", b"old 3\nAAAA\n"),
        GOOD.replace(b"old 3\n", b"old 3\n!\n"),
        GOOD.replace(b"\n7\n", b"\n07\n"),
        GOOD[:-1],
        GOOD + b"\xff\n",
        GOOD.replace(b"\n\n", b"\n", 1),
        b"old 3\n" + b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n" * 64 + b"\n" + GOOD.partition(b"\n\n")[2],
    ],
)
def test_a_body_that_is_not_a_request_is_a_400(body: bytes) -> None:
    """In whatever way it is not one."""
    assert refused(body).status == HTTPStatus.BAD_REQUEST


def test_a_request_comes_out_as_it_went_in() -> None:
    """Old size, proof and the whole note; 63 hashes are not too many."""
    request = parse_add_checkpoint(GOOD)
    assert format_add_checkpoint(request.old, request.proof, str(request.note)) == GOOD
    most = format_add_checkpoint(3, [EMPTY_ROOT] * 63, checkpoint_of(TREE, 7))
    assert len(parse_add_checkpoint(most).proof) == 63


def test_sixteen_large_signatures_have_room() -> None:
    """As the specification of notes asks for, beside the longest proof."""
    large = tuple(NoteSignature(f"witness-{number}.example", b"abcd", bytes(4800)) for number in range(16))
    note = parse_note(checkpoint_of(TREE, 7))
    body = format_add_checkpoint(3, [EMPTY_ROOT] * 63, str(Note(note.text, (*note.signatures, *large))))
    assert len(parse_add_checkpoint(body).note.signatures) == 17
    assert len(body) <= NOTE_BYTES <= BODY_BYTES - len(format_add_checkpoint(2**62, [EMPTY_ROOT] * 63, ""))


@given(st.binary(max_size=300))
def test_any_octets_are_read_or_refused(body: bytes) -> None:
    """Nothing else comes out of the parser than a request or a refusal."""
    assert refused(body).status == HTTPStatus.BAD_REQUEST


def test_the_trees_of_these_tests_are_those_of_the_ledger() -> None:
    """Root by tiles and by frontier are the same."""
    size, frontier = extend_frontier(0, (), (hash_leaf(f"leaf {number}".encode()) for number in range(700)))
    assert root_of(frontier) == TREE.root(size)
    assert consistency_proof(TREE.read, 300, 700) == TREE.consistency(300, 700)
