"""Whatever is asked of a witness, in whatever order, and however often it is opened anew: it cosigns one history."""

from __future__ import annotations

import tempfile
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.witness.state import WitnessState, WitnessStateError, create_state, open_state
from keyvault.signatures import verify_ed25519
from ledger.domain.notes import parse_note, verify_cosignature
from ledger.domain.witnessing import RefusalError, format_add_checkpoint, parse_add_checkpoint
from tests.support.logs import SignedLog, leaves

LOG = SignedLog(leaves(12))
FORK = LOG.fork(4, leaves(8, "other"))
SIZES = st.integers(0, 12)


@given(st.lists(st.tuples(st.booleans(), SIZES, SIZES, st.booleans(), st.integers(0, 9)), max_size=12))
@settings(max_examples=25, deadline=None)
def test_one_history_is_cosigned(steps: list[tuple[bool, int, int, bool, int]]) -> None:
    """Sizes never go back, nor do the times of cosignatures, and a refusal changes nothing."""
    with tempfile.TemporaryDirectory() as folder:
        state = create_state(Path(folder, "state"), "w.example")
        state.trust(LOG.key)
        cosigned: list[tuple[int, bytes]] = []
        statuses: set[HTTPStatus] = set()
        last = 0
        for is_fork, old, new, reopened, now in steps:
            log = FORK if is_fork else LOG
            if reopened:
                state = open_state(state.folder)
            if new < old:
                old, new = new, old
            before = state.logs()[0].seen
            try:
                line = state.cosign(parse_add_checkpoint(log.request(old, new)), now)
            except RefusalError as refusal:
                statuses.add(refusal.status)
                assert state.logs()[0].seen == before
                continue
            at = int.from_bytes(line.signature[:8], "big")
            assert at >= max(now, last, 1)
            assert (old, new) == (before.size, state.logs()[0].seen.size)
            last = at
            cosigned.append((new, log.tree.root(new)))
        sizes = [size for size, _ in cosigned]
        assert sizes == sorted(sizes)
        assert statuses <= {HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY}
        assert any(all(log.tree.root(size) == root for size, root in cosigned) for log in (LOG, FORK))


def test_what_monitors_get_is_what_was_given(tmp_path: Path) -> None:
    """The note with the log's signature, and the cosignature to the byte; only for the right origin."""
    state = create_state(tmp_path, "w.example")
    state.trust(LOG.key)
    line = state.cosign(parse_add_checkpoint(LOG.request(0, 7)), 1_700_000_000)
    (log,) = state.logs()
    assert (log.seen.size, log.cosigned_at) == (7, 1_700_000_000)
    note = state.last_note(state_hash(LOG.key.name))
    assert note == LOG.note(7) + line.line
    assert verify_cosignature(parse_note(note), state.key, verify_ed25519) == 1_700_000_000
    assert state.last_note(state_hash("other")) is None


def state_hash(origin: str) -> str:
    """As the specification has it."""
    return sha256(origin.encode()).hexdigest()


@pytest.mark.parametrize("content", [b"", b"\xff", b"PRIVATE+KEY+w.example+00000000+AAAA\n", b"nothing"])
def test_a_key_that_was_damaged_is_not_used(tmp_path: Path, content: bytes) -> None:
    """Nor is one made anew."""
    create_state(tmp_path, "w.example")
    (tmp_path / "witness-key").write_bytes(content)
    with pytest.raises(WitnessStateError, match="does not hold the key"):
        open_state(tmp_path)


def test_a_fork_is_kept_whatever_else_was_sent_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends true checkpoints with false proofs does not fill the disk, and does not keep a fork out of it: of what
    proves nothing by itself, the first and the newest stay."""
    monkeypatch.setattr("api.evidence.NEWEST", 2)
    monkeypatch.setattr("api.evidence.MOST", 1)
    state: WitnessState = create_state(tmp_path, "w.example")
    state.trust(LOG.key)
    state.cosign(parse_add_checkpoint(LOG.request(0, 6)), 1)
    other_fork = LOG.fork(3, leaves(9, "third"))
    false = [format_add_checkpoint(6, [bytes(32)], LOG.note(size)) for size in range(6, 13)]
    for body in (*false, FORK.request(6, 6), other_fork.request(6, 6), FORK.request(6, 12)):
        with pytest.raises(RefusalError):
            state.cosign(parse_add_checkpoint(body), 1)
    hashed = state_hash(LOG.key.name)
    names = [path.name.removesuffix(".txt") for path in (tmp_path / "evidence").iterdir()]
    assert sorted(names) == sorted(
        [
            f"{hashed}-6-{FORK.tree.root(6).hex()}",
            f"unproven-{hashed}-6-{LOG.tree.root(6).hex()}",
            f"unproven-{hashed}-12-{LOG.tree.root(12).hex()}",
            f"unproven-{hashed}-12-{FORK.tree.root(12).hex()}",
        ]
    )
    fork = (tmp_path / "evidence" / f"{hashed}-6-{FORK.tree.root(6).hex()}.txt").read_text()
    assert FORK.note(6) in fork
    assert LOG.note(6) in fork
