"""Witnesses cosign what is published; their cosignatures are verified, kept and shown; another history is an alarm."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from threading import Event
from uuid import UUID

import pytest
from typing_extensions import override

from keyvault.signatures import SigningKey
from ledger.domain.notes import COSIGNATURE, NoteSignature, VerifierKey, cosignature, cosigned_message, parse_note
from ledger.domain.witness_policy import QuorumError, cosigners, require_quorum
from ledger.domain.witnessing import Seen
from ledger.ports import PublishedCheckpoint
from ledger.ports.witness import WitnessAnswer, WitnessOutcome
from ledger.services.dependencies import Dependencies
from ledger.services.proving import witnessing
from ledger.services.proving.proofs import prove_event
from ledger.services.proving.publishing import INTERVAL, QuorumAwayError, log_key, note_of, publish
from ledger.services.proving.witnessing import cosign, kept_cosigners
from tests.support.cosigning import TIMESTAMP, MemoryWitness, MemoryWitnesses
from tests.support.ledgers import Ledger, a_fact
from tests.support.worker import eventually


class World:
    """A ledger with three witnesses, two of which are the quorum."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.ledger_id = ledger.ledger_id
        key = log_key(ledger.deps, ledger.ledger_id)
        self.first, self.second, self.third = (MemoryWitness(name, [key]) for name in ("w1", "w2", "w3"))
        self.all = MemoryWitnesses([self.first, self.second, self.third], 2)
        self.alarms: list[str] = []

    @property
    def deps(self) -> Dependencies:
        """With the witnesses."""

        def alarm(_: UUID, position: int, part: int | None, what: str, /) -> None:
            self.alarms.append(what)

        return replace(self.ledger.deps, witnesses=self.all, alarm=alarm)

    def grow(self, count: int = 1) -> None:
        """Append events, and let the next checkpoint come due."""
        self.ledger.append(*(a_fact() for _ in range(count)))
        self.ledger.backend.clock.now += INTERVAL

    def publish(self, count: int = 1) -> PublishedCheckpoint:
        """Append and publish."""
        self.grow(count)
        return publish(self.deps, self.ledger_id)

    def outcomes(self, witness: MemoryWitness) -> list[WitnessOutcome]:
        """How it went with a witness."""
        return [outcome for name, outcome in self.all.told if name == witness.name]


@pytest.fixture
def world(ledger: Ledger) -> World:
    """On each engine in turn."""
    return World(ledger)


def test_cosignatures_are_kept_and_shown(world: World) -> None:
    """All witnesses are asked once for each checkpoint; the note bears what they sign, and satisfies the policy."""
    for count in (1, 2, 300):
        checkpoint = world.publish(count)
        assert cosign(world.deps, checkpoint) == {"w1", "w2", "w3"}
        assert cosign(world.deps, checkpoint) == {"w1", "w2", "w3"}
        require_quorum(world.all.policy, parse_note(note_of(world.deps, checkpoint)), world.all.verify)
    assert [witness.asked for witness in (world.first, world.second, world.third)] == [3, 3, 3]
    assert world.first.seen.size == 303


def test_without_witnesses_a_checkpoint_is_published_and_they_catch_up(world: World) -> None:
    """By default their absence is told and stops nothing; who comes back cosigns the newest."""
    world.first.is_away = world.second.is_away = True
    checkpoint = world.publish()
    assert cosign(world.deps, checkpoint) == {"w3"}
    with pytest.raises(QuorumError):
        require_quorum(world.all.policy, parse_note(note_of(world.deps, checkpoint)), world.all.verify)
    world.first.is_away = False
    assert cosign(world.deps, world.publish(5)) == {"w1", "w3"}
    assert world.all.reached == [False, True]
    assert world.outcomes(world.second) == [WitnessOutcome.AWAY] * 2
    assert world.alarms == []


def test_a_witness_with_another_size_is_asked_again_from_there(world: World) -> None:
    """One that has seen more than is known here, as after the ledger's database was restored, or less."""
    early, later = world.publish(3), world.publish(4)
    world.first.seen = Seen(early.size, early.root)
    world.second.seen = Seen(later.size, later.root)
    assert cosign(world.deps, later) == {"w1", "w2", "w3"}
    assert [world.first.asked, world.second.asked, world.third.asked] == [2, 2, 1]


def test_a_witness_that_was_overtaken_is_no_alarm(world: World) -> None:
    """Another process has published more meanwhile, and had it cosigned."""
    early, later = world.publish(3), world.publish(4)
    world.first.seen = Seen(later.size, later.root)
    assert cosign(world.deps, early) == {"w2", "w3"}
    assert world.outcomes(world.first) == [WitnessOutcome.OVERTAKEN]
    assert world.alarms == []


@pytest.mark.parametrize("seen", [Seen(1, sha256(b"x").digest()), Seen(9, sha256(b"x").digest())])
def test_another_history_is_an_alarm_once_and_leaves_evidence(world: World, seen: Seen) -> None:
    """A witness knows another tree, or a longer ledger than there ever was."""
    world.first.seen = seen
    checkpoint = world.publish(2)
    for _ in range(3):
        assert cosign(world.deps, checkpoint) == {"w2", "w3"}
    assert world.outcomes(world.first) == [WitnessOutcome.OTHER_HISTORY] * 3
    assert len(world.alarms) == 1
    assert world.alarms[0].startswith("a witness has seen another history")
    (evidence,) = world.all.evidence
    assert checkpoint.note in evidence
    assert world.first.key.text in evidence


def test_what_does_not_verify_is_not_kept(world: World) -> None:
    """A cosignature by another key, of another text, or nothing like one; other signatures are ignored."""
    checkpoint = world.publish()
    text = parse_note(checkpoint.note).text
    key = world.first.key
    stranger = SigningKey.generate()

    def line(signer: SigningKey, of: str, by: VerifierKey = key) -> bytes:
        return cosignature(by, TIMESTAMP, signer.sign(cosigned_message(of, TIMESTAMP))).line.encode()

    false = [
        line(stranger, text),
        line(world.first.signer, text.replace("\n1\n", "\n2\n")),
        line(stranger, text, VerifierKey(key.name, COSIGNATURE, stranger.public_key)),
        b"",
        b"\xff",
        b"nothing\n",
    ]
    for body in false:
        world.first.answers = [WitnessAnswer(200, body)]
        assert cosign(world.deps, checkpoint) == {"w2", "w3"}
    assert world.outcomes(world.first) == [WitnessOutcome.FALSE] * len(false)
    other = line(stranger, text, VerifierKey("stranger", COSIGNATURE, stranger.public_key))
    world.first.answers = [WitnessAnswer(200, other + line(world.first.signer, text))]
    assert cosign(world.deps, checkpoint) == {"w1", "w2", "w3"}
    assert cosigners(world.all.policy, parse_note(note_of(world.deps, checkpoint)), world.all.verify) == {
        "w1",
        "w2",
        "w3",
    }
    assert b"stranger" not in note_of(world.deps, checkpoint).encode()


@pytest.mark.parametrize("answer", [WitnessAnswer(404, b""), WitnessAnswer(302, b""), WitnessAnswer(409, b"x\n")])
def test_who_refuses_is_told_of_and_holds_up_nobody(world: World, answer: WitnessAnswer) -> None:
    """It does not know the ledger, or speaks something else."""
    world.first.answers = [answer]
    assert cosign(world.deps, world.publish()) == {"w2", "w3"}
    assert world.outcomes(world.first) == [WitnessOutcome.REFUSED]


def test_a_size_that_changes_at_every_try_ends(world: World) -> None:
    """After a few tries, without an alarm."""
    world.publish(2)
    checkpoint = world.publish(2)
    world.first.answers = [WitnessAnswer(409, b"1\n"), WitnessAnswer(409, b"2\n")] * 9
    assert cosign(world.deps, checkpoint) == {"w2", "w3"}
    assert len(world.first.answers) == 15


def test_where_they_are_required_nothing_is_published_without_the_quorum(world: World) -> None:
    """What was published before stays; the next checkpoint comes with the quorum, and bears its cosignatures."""
    world.all.required = True
    first = world.publish()
    require_quorum(world.all.policy, parse_note(note_of(world.deps, first)), world.all.verify)
    world.first.is_away = world.second.is_away = True
    assert world.publish(2).note == first.note
    last = world.deps.transparency.latest_published(world.ledger_id, first.origin)
    assert last is not None
    assert last.note == first.note
    world.second.is_away = False
    second = publish(world.deps, world.ledger_id)
    assert second.size == 3
    require_quorum(world.all.policy, parse_note(note_of(world.deps, second)), world.all.verify)


def test_who_needs_a_newer_checkpoint_is_told_that_the_quorum_is_away(world: World) -> None:
    """A proof of an event that no checkpoint has, and the first checkpoint of a ledger."""
    world.all.required = True
    world.first.is_away = world.second.is_away = True
    with pytest.raises(QuorumAwayError):
        world.publish()
    world.second.is_away = False
    world.publish()
    world.second.is_away = True
    event_id = world.ledger.append(a_fact()).events[0].event_id
    with pytest.raises(QuorumAwayError):
        prove_event(world.deps, world.ledger_id, event_id)


def test_while_too_many_rest_nothing_is_signed_or_asked(world: World) -> None:
    """A ledger that everybody asks for its checkpoint does not sign one each time."""
    world.all.required = True
    first = world.publish()
    world.first.is_resting = world.third.is_resting = True
    signed = world.deps.signed.read(world.ledger_id, first.origin)
    assert world.publish(3).note == first.note
    assert world.deps.signed.read(world.ledger_id, first.origin) == signed
    world.first.is_resting = world.third.is_resting = False
    world.all.is_too_early = True
    assert world.publish(3).note == first.note
    assert world.second.asked == 1
    world.all.is_too_early = False
    assert world.publish().size == 8


def stand_in(world: World, size: int, name: str, line: str) -> None:
    """Put a line where a witness's cosignature would stand, as an administrator of the database can."""
    origin = log_key(world.deps, world.ledger_id).name
    world.deps.transparency.add_cosignature(world.ledger_id, origin, size, name=name, line=line, timestamp=1)


@pytest.mark.parametrize("required", [False, True])
def test_a_false_line_in_the_database_stops_nothing_and_is_an_alarm(world: World, required: bool) -> None:
    """Of this checkpoint or a later one, whether it can be read or not: it counts for nobody, and hides nobody."""
    world.all.required = required
    key = world.first.key
    for size in (2, 3, 4):
        stand_in(world, size, key.name, NoteSignature(key.name, key.key_id, bytes(72)).line)
        stand_in(world, size, f"{size}", "nothing like a signature")
    assert cosign(world.deps, world.publish()) == {"w1", "w2", "w3"}
    checkpoint = world.publish()
    assert checkpoint.size == 2
    for _ in range(3):
        assert cosign(world.deps, checkpoint) == {"w2", "w3"}
        assert kept_cosigners(world.deps, world.all, checkpoint) == {"w2", "w3"}
    assert set(world.outcomes(world.first)) == {WitnessOutcome.COSIGNED, WitnessOutcome.NOT_KEPT}
    assert len(world.alarms) == 1
    assert "of 2 events another line has its place" in world.alarms[0]
    assert cosign(world.deps, world.publish(3)) == {"w1", "w2", "w3"}


def test_what_is_not_kept_does_not_count(world: World) -> None:
    """Two witnesses under one name of a key: what the second one signs finds no place, and is shown to nobody."""

    class Namesake(MemoryWitness):
        @property
        @override
        def key(self) -> VerifierKey:
            return replace(super().key, name="one.example")

    key = log_key(world.deps, world.ledger_id)
    world.all = MemoryWitnesses([Namesake("old", [key]), Namesake("new", [key])], 2, required=True)
    with pytest.raises(QuorumAwayError):
        world.publish()
    assert world.all.reached == [False]


def test_who_is_slow_is_not_waited_for_and_counts_when_it_comes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are asked within one time, however long one of them takes."""
    go_on = Event()

    class Slow(MemoryWitness):
        @override
        def add_checkpoint(self, body: bytes) -> WitnessAnswer:
            go_on.wait(60)
            return super().add_checkpoint(body)

    monkeypatch.setattr(witnessing, "ASKING_SECONDS", 0.3)
    world.first = Slow("w1", world.first.trusted)
    world.all = MemoryWitnesses([world.first, world.second, world.third], 2, required=True)
    checkpoint = world.publish()
    assert not go_on.is_set()
    assert kept_cosigners(world.deps, world.all, checkpoint) == {"w2", "w3"}
    go_on.set()
    eventually(lambda: kept_cosigners(world.deps, world.all, checkpoint) == {"w1", "w2", "w3"})
