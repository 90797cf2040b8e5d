"""Who audits from outside notices what a log shows otherwise than before, keeps it, and believes nothing unverified."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.audit import auditing, fetching
from api.audit.auditing import Audit, Audited, FindingError
from api.audit.fetching import AuditError, LogClient
from api.audit.memory import MemoryFolder
from keyvault.signatures import SigningKey, verify_ed25519
from ledger.domain.checkpoints import PROOF_HEADER, open_checkpoint, parse_tlog_proof
from ledger.domain.merkle import hash_leaf, verify_inclusion
from ledger.domain.notes import COSIGNATURE, NoteSignature, VerifierKey, cosignature, cosigned_message, to_base64
from ledger.domain.witness_policy import WitnessPolicy, parse_policy
from tests.support.leaf_bytes import leaf
from tests.support.log_server import LogServer
from tests.support.logs import SignedLog, leaves
from tests.support.witness import run_program

SECRET = "secret"


@pytest.fixture
def server() -> Iterator[LogServer]:
    """A log of 700 events, over HTTP."""
    with LogServer(SignedLog(leaf(position, keys=[b"k"]) for position in range(700))).serving() as opened:
        yield opened


def audit(
    server: LogServer, folder: Path, *, entries: bool = False, key: VerifierKey | None = None, policy: Any = None
) -> Audited:
    """One audit, as by a new process."""
    memory = MemoryFolder(folder)
    log = LogClient(server.url, SECRET if entries else None, sleep=lambda _: None)
    try:
        with memory.alone():
            run = Audit(log, memory, key or server.log.key, policy, now=1, progress=lambda *_: None)
            return run.run(entries=entries)
    finally:
        log.close()


def found(server: LogServer, folder: Path, **options: Any) -> tuple[str, str]:
    """What an audit finds, and what its evidence says."""
    with pytest.raises(FindingError) as caught:
        audit(server, folder, **options)
    return caught.value.kind, caught.value.evidence.read_text()


def grown(server: LogServer, count: int) -> None:
    """Append to the log that is served."""
    size = server.log.tree.size
    server.log.tree.extend(leaf(position, keys=[b"k"]) for position in range(size, size + count))


@pytest.mark.parametrize("entries", [False, True])
def test_a_log_that_only_grows_is_followed(server: LogServer, tmp_path: Path, entries: bool) -> None:
    """Only what is new is fetched; at the same size nothing but the checkpoint."""
    assert audit(server, tmp_path, entries=entries).before == 0
    for count in (0, 1, 67, 300):
        before = server.log.tree.size
        grown(server, count)
        server.asked.clear()
        result = audit(server, tmp_path, entries=entries)
        assert (result.before, result.checkpoint.size) == (before, before + count)
        assert result.entries == (before + count if entries else 0)
        assert len(server.asked) <= 1 + (-(-count // 256) + 1) * (3 if entries else 1)


def test_entries_are_followed_from_the_first_one_however_late_somebody_asks(server: LogServer, tmp_path: Path) -> None:
    """What was seen of the tree does not stand for the leaves."""
    audit(server, tmp_path)
    grown(server, 10)
    assert audit(server, tmp_path, entries=True).entries == 710


def test_a_fork_of_the_same_size_is_found_again_and_again(server: LogServer, tmp_path: Path) -> None:
    """Both notes are kept, in a file that is not written a second time; across restarts."""
    before = server.log.note()
    audit(server, tmp_path)
    server.log = server.log.fork(650, leaves(50, "other"))
    kind, evidence = found(server, tmp_path)
    assert kind == "fork"
    assert before in evidence
    assert server.log.note() in evidence
    (path,) = (tmp_path / "evidence").iterdir()
    path.write_text("the first one stays")
    with pytest.raises(FindingError):
        audit(server, tmp_path)
    assert path.read_text() == "the first one stays"


def test_a_larger_fork_is_found_and_proven_by_its_own_tiles(server: LogServer, tmp_path: Path) -> None:
    """Both notes, the root that the other tree has at the size that was seen, and the proof; and it stays found."""
    honest, before = server.log, server.log.note()
    audit(server, tmp_path)
    server.log = fork = honest.fork(650, leaves(150, "other"))
    kind, evidence = found(server, tmp_path)
    assert kind == "fork"
    assert before in evidence
    assert fork.note() in evidence
    assert to_base64(fork.tree.root(700)) in evidence
    assert all(to_base64(node) in evidence for node in fork.tree.consistency(700, 800))
    server.log = honest
    assert found(server, tmp_path)[0] == "rollback"
    grown(server, 200)
    assert found(server, tmp_path)[0] == "tiles"


def test_a_rollback_is_found(server: LogServer, tmp_path: Path) -> None:
    """Even of one event, and also to what an interrupted audit has not looked into."""
    short = SignedLog(server.log.tree.leaves[:699], server.log.key.name)
    short.signer, short.key = server.log.signer, server.log.key
    before, server.stop_after = server.log.note(), 2
    with pytest.raises(AuditError):
        audit(server, tmp_path)
    server.stop_after = None
    server.log = short
    kind, evidence = found(server, tmp_path)
    assert kind == "rollback"
    assert before in evidence
    assert short.note() in evidence


def test_a_fork_that_was_signed_is_not_forgotten_whatever_fails_meanwhile(server: LogServer, tmp_path: Path) -> None:
    """A server that shows a tree, and does not serve it, has signed it all the same; also when another one follows."""
    audit(server, tmp_path)
    first, second = (server.log.fork(700, leaves(count, kind)) for count, kind in ((20, "a"), (60, "b")))
    for server.log in (first, second, second):
        server.asked.clear()
        server.stop_after = 1
        with pytest.raises(AuditError):
            audit(server, tmp_path)
    server.stop_after = None
    for _ in range(2):
        kind, evidence = found(server, tmp_path)
        assert kind == "tiles"
        assert first.note() in evidence
    server.tree = server.log.fork(700, leaves(60, "a"))
    kind, evidence = found(server, tmp_path)
    assert kind == "tiles"
    assert second.note() in evidence
    server.tree = None
    kind, evidence = found(server, tmp_path)
    assert kind == "fork"
    assert first.note() in evidence
    assert second.note() in evidence


def test_a_smaller_checkpoint_is_looked_into_once_the_log_goes_on(server: LogServer, tmp_path: Path) -> None:
    """One that an old copy of the same history shows is a rollback only then; of another history it stays a fork."""
    honest = server.log
    audit(server, tmp_path)
    whole = honest.note
    honest.note = lambda size=None: whole(500)  # type: ignore[method-assign]
    assert found(server, tmp_path)[0] == "rollback"
    honest.note = whole  # type: ignore[method-assign]
    assert audit(server, tmp_path).checkpoint.size == 700
    server.log = fork = honest.fork(400, leaves(200, "other"))
    assert found(server, tmp_path)[0] == "rollback"
    server.log = honest
    for _ in range(2):
        grown(server, 10)
        kind, evidence = found(server, tmp_path)
        assert kind == "fork"
        assert fork.note() in evidence
        assert to_base64(honest.tree.root(600)) in evidence
        assert all(to_base64(node) in evidence for node in honest.tree.consistency(600, 700))


def test_tiles_that_are_not_those_of_the_checkpoint_are_no_fork(server: LogServer, tmp_path: Path) -> None:
    """A server that gives wrong hashes is told apart from a log with two histories, and is looked at anew next time."""
    audit(server, tmp_path)
    grown(server, 30)
    server.tree = server.log.fork(710, leaves(20, "other"))
    kind, evidence = found(server, tmp_path)
    assert kind == "tiles"
    assert server.log.note() in evidence
    server.tree = None
    assert audit(server, tmp_path).checkpoint.size == 730


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (leaf(300, keys=[b"s"]), "uses a key that was shredded"),
        (leaf(299), "says that it stands at 299"),
        (leaf(300, recorded_at=5), "was recorded before"),
        (b"nothing that can be read", "cannot be read"),
    ],
)
def test_a_leaf_that_does_not_fit_is_found_by_its_position(tmp_path: Path, wrong: bytes, why: str) -> None:
    """Though the tree is right: the ledger itself has recorded it so."""
    recorded = [leaf(position, keys=[b"k"], shreds=[b"s"] if position == 10 else []) for position in range(400)]
    with LogServer(SignedLog([*recorded[:300], wrong, *recorded[301:]])).serving() as server:
        assert audit(server, tmp_path).checkpoint.size == 400
        with pytest.raises(FindingError, match=why) as caught:
            audit(server, tmp_path, entries=True)
    assert caught.value.kind == "entry-300"
    evidence = caught.value.evidence.read_text()
    proof = parse_tlog_proof(evidence[evidence.index(PROOF_HEADER) :])
    assert (proof.index, proof.extra) == (300, wrong)
    checkpoint = open_checkpoint(proof.checkpoint, server.log.key, verify_ed25519)
    verify_inclusion(index=300, size=400, leaf_hash=hash_leaf(wrong), proof=proof.hashes, root=checkpoint.root)


def test_a_key_stays_dead_across_audits(tmp_path: Path) -> None:
    """What was shredded before the last audit counts in this one."""
    recorded = [leaf(position, shreds=[b"s"] if position == 10 else []) for position in range(20)]
    with LogServer(SignedLog(recorded)).serving() as server:
        audit(server, tmp_path, entries=True)
        server.log.tree.extend([leaf(20, keys=[b"s"])])
        assert found(server, tmp_path, entries=True)[0] == "entry-20"


def test_entries_that_are_not_in_the_tree_are_found(server: LogServer, tmp_path: Path) -> None:
    """The server shows another leaf than the one that was recorded, with its own hashes or without."""
    audit(server, tmp_path)
    other = server.log.tree.leaves[:]
    other[500] = leaf(500, keys=[b"o"])
    server.tree = SignedLog(other)
    assert found(server, tmp_path, entries=True)[0] == "entries"
    honest = server.log.tree
    server.tree.tree.tile = honest.tile  # type: ignore[method-assign]  # the tiles of one, and the leaves of the other
    assert found(server, tmp_path, entries=True)[0] == "entry-500"


def test_false_entries_do_no_harm_to_later_audits(
    server: LogServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They fit each other, and came with hashes of their own: nothing of them is kept, whenever the audit ends. Nor do
    they make a true leaf look false."""
    monkeypatch.setattr(auditing, "SAVE_EVERY", 1)
    audit(server, tmp_path)
    honest = server.log.tree.leaves[:]
    other = [honest[0], leaf(1, shreds=[b"s"]), *honest[2:]]
    for stop_after in range(2, 9):
        server.tree, server.stop_after = SignedLog(other), stop_after
        server.asked.clear()
        with pytest.raises((AuditError, FindingError)) as caught:
            audit(server, tmp_path, entries=True)
        assert getattr(caught.value, "kind", "entries") == "entries"
    server.tree, server.stop_after = None, None
    server.log.tree.extend([leaf(700, keys=[b"s"])])
    assert audit(server, tmp_path, entries=True).entries == 701
    monkeypatch.undo()
    false = [*other, leaf(700, keys=[b"s"])]
    server.tree = SignedLog(false)
    assert found(server, tmp_path / "another", entries=True)[0] == "tiles"
    audit_of_tree = tmp_path / "tree"
    server.tree = None
    audit(server, audit_of_tree)
    server.tree = SignedLog(false)
    assert found(server, audit_of_tree, entries=True)[0] == "entries"


@pytest.mark.parametrize("entries", [False, True])
def test_an_interrupted_audit_goes_on_where_it_was(
    server: LogServer, tmp_path: Path, entries: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often, at whatever request; what was fetched is not fetched again."""
    monkeypatch.setattr(auditing, "SAVE_EVERY", 1)
    grown(server, 1300)
    fetched: list[str] = []
    result = None
    for _ in range(60):
        server.asked.clear()
        server.stop_after = 8 if entries else 3
        try:
            result = audit(server, tmp_path, entries=entries)
        except AuditError:
            fetched += [path for path in server.asked[: server.stop_after] if path != "/checkpoint"]
        else:
            break
    assert result is not None
    assert (result.checkpoint.size, result.entries) == (2000, 2000 if entries else 0)
    assert len(fetched) < (60 if entries else 40)


def test_partial_tiles_may_be_gone(server: LogServer, tmp_path: Path) -> None:
    """Then the full tile stands for them; that it is longer changes nothing."""
    first = server.log.note(520)
    whole, server.log.note = server.log.note, lambda size=None: first  # type: ignore[method-assign]
    server.no_partial = True
    assert audit(server, tmp_path, entries=True).checkpoint.size == 520
    server.log.note = whole  # type: ignore[method-assign]
    server.no_partial = False
    assert audit(server, tmp_path, entries=True).checkpoint.size == 700


def test_a_server_that_is_busy_is_asked_again_and_one_that_is_broken_is_not_believed(
    server: LogServer, tmp_path: Path
) -> None:
    """503 and 429 pass; answers that break off and other statuses end the audit, without a finding."""
    server.failures = [503, 429, 503]
    assert audit(server, tmp_path).checkpoint.size == 700
    grown(server, 5)
    server.broken = {"/tile/0/002.p/193"}
    with pytest.raises(AuditError, match="could not be fetched"):
        audit(server, tmp_path)
    server.broken = set()
    server.failures = [302]
    with pytest.raises(AuditError, match="status 302"):
        audit(server, tmp_path)
    assert not (tmp_path / "evidence").exists()


def test_a_checkpoint_that_is_not_signed_by_the_key_does_not_count(server: LogServer, tmp_path: Path) -> None:
    """Nothing is kept of it."""
    other = VerifierKey(server.log.key.name, 1, SigningKey.generate().public_key)
    with pytest.raises(AuditError, match="does not count"):
        audit(server, tmp_path, key=other)
    assert audit(server, tmp_path).before == 0


def test_a_policy_asks_for_cosignatures(server: LogServer, tmp_path: Path) -> None:
    """A checkpoint without them does not count, and a fork is found without them all the same."""
    signer = SigningKey.generate()
    witness = VerifierKey("w.example", COSIGNATURE, signer.public_key)
    policy: WitnessPolicy = parse_policy(f"witness w {witness.text}\nquorum w\n".encode())
    with pytest.raises(AuditError, match="asks for the quorum w"):
        audit(server, tmp_path, policy=policy)
    note = server.log.note()
    text = note.rpartition("\n\n")[0] + "\n"
    line = cosignature(witness, 1, signer.sign(cosigned_message(text, 1))).line
    server.log.note = lambda size=None: note + line  # type: ignore[method-assign]
    assert audit(server, tmp_path, policy=policy).checkpoint.size == 700
    server.log = server.log.fork(600, leaves(100, "other"))
    assert found(server, tmp_path, policy=policy)[0] == "fork"


def test_many_and_large_cosignatures_are_taken(server: LogServer, tmp_path: Path) -> None:
    """Also of types that nobody here can verify: as many as the specification asks for."""
    lines = [NoteSignature(f"w{number}.example", b"abcd", bytes(4800)).line for number in range(16)]
    note = server.log.note() + "".join(lines)
    server.log.note = lambda size=None: note  # type: ignore[method-assign]
    assert audit(server, tmp_path).checkpoint.size == 700


def test_a_checkpoint_that_too_few_have_cosigned_is_remembered(server: LogServer, tmp_path: Path) -> None:
    """The log has signed it: who comes back with another tree that all have cosigned has signed two."""
    witness = VerifierKey("w.example", COSIGNATURE, SigningKey.generate().public_key)
    policy = parse_policy(f"witness w {witness.text}\nquorum w\n".encode())
    shown = server.log.note()
    with pytest.raises(AuditError, match="asks for the quorum w"):
        audit(server, tmp_path, policy=policy)
    server.log = server.log.fork(600, leaves(100, "other"))
    kind, evidence = found(server, tmp_path)
    assert kind == "fork"
    assert shown in evidence


def test_what_was_kept_is_never_taken_for_nothing(server: LogServer, tmp_path: Path) -> None:
    """A folder of another log, or one that was damaged, is refused; a half-written file behind it does no harm."""
    audit(server, tmp_path, entries=True)
    with LogServer(SignedLog(leaves(5))).serving() as other, pytest.raises(AuditError, match="another folder"):
        audit(other, tmp_path)
    (tmp_path / "dead-keys").write_bytes(b"half a ke")
    grown(server, 1)
    assert audit(server, tmp_path, entries=True).before == 700
    kept = json.loads((tmp_path / "audit.json").read_text())
    smaller = {"size": 1, "frontier": to_base64(bytes(32))}
    larger = {**kept["entries"], "size": 1023, "frontier": to_base64(bytes(320))}
    for damaged in ({"verified": smaller}, {"checkpoint": None}, {"entries": larger}, {"pending": ["note"]}):
        (tmp_path / "audit.json").write_text(json.dumps({**kept, **damaged}))
        with pytest.raises(AuditError, match="cannot be read"):
            audit(server, tmp_path)
    (tmp_path / "audit.json").write_text("{")
    with pytest.raises(AuditError, match="cannot be read"):
        audit(server, tmp_path)
    memory = MemoryFolder(tmp_path)
    with memory.alone(), pytest.raises(AuditError, match="another audit"):
        audit(server, tmp_path)


def test_an_answer_that_grows_when_it_is_unpacked_is_not(server: LogServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small answer cannot fill the memory of who asks."""
    monkeypatch.setattr(fetching, "_BUNDLE_BYTES", 10_000)
    log = LogClient(server.url, SECRET)
    tile = auditing._tiles_between(0, 256)[0]
    with pytest.raises(AuditError, match="longer than it may be"):
        log.entries(tile)
    log.close()


def test_the_command_tells_what_holds_and_what_to_do(server: LogServer, tmp_path: Path) -> None:
    """Exit status 0 and the root; 1 with the place of the evidence; entries take a key."""
    arguments = ("audit", server.url, "--key", server.log.key.text, "--ledger-state", str(tmp_path / "kept"))
    first = run_program(*arguments)
    assert first.stdout == (
        f"size 700 (before: 0)\nroot {to_base64(server.log.tree.root(700))}\nseen for the first time\n"
    )
    without = run_program(*arguments, "--entries", check=False)
    assert (without.returncode, "--api-key-file" in without.stderr) == (1, True)
    (tmp_path / "key").write_text(SECRET + "\n")
    both = run_program(*arguments, "--entries", "--api-key-file", str(tmp_path / "key"))
    assert "entries 700\nconsistent with all that was seen before\n" in both.stdout
    server.log = server.log.fork(600, leaves(100, "other"))
    fork = run_program(*arguments, check=False)
    assert fork.returncode == 1
    (evidence,) = (tmp_path / "kept" / "evidence").iterdir()
    assert fork.stderr.startswith("Error: fork: the log has signed two different trees of 700 events.")
    assert str(evidence) in fork.stderr
