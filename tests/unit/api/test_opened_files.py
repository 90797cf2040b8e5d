"""A file of opened events verifies offline; whatever is changed in it is refused, or is what nothing proves."""

from __future__ import annotations

import base64
import copy
import io
import itertools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from api import opened_files
from api.opened_files import Outcome, verify_file
from keyvault.envelope import FORMAT, DataKey, _commit
from keyvault.signatures import SigningKey, verify_ed25519
from ledger.domain.checkpoints import Checkpoint, open_checkpoint
from ledger.domain.events import Role
from ledger.domain.merkle import hash_leaf
from ledger.domain.notes import NoteError
from ledger.domain.opened import UNPROVEN, OpenedError
from tests.support import opened_answers as made
from tests.unit.keyvault.test_key_commitment import ATTACK, ONE

CHANGES = (0x01, 0x20) if not os.environ.get("AUDIT_LEDGER_TEST_ROUNDS") else tuple(range(1, 256))
"""What each byte is altered by in turn; all of it in a longer run."""


def opened(note: str) -> Checkpoint:
    """The checkpoint, if the log has signed it."""
    return open_checkpoint(note, made.KEY, verify_ed25519)


def check(answer: bytes) -> list[Outcome]:
    """What becomes of each event."""
    return list(verify_file(io.BytesIO(answer), opened)[1])


def proven(answer: bytes) -> list[Any]:
    """What is proven of each event of a file that must hold."""
    found = check(answer)
    assert [one.fault for one in found] == [None] * len(found)
    return [one.proven.members for one in found if one.proven is not None]


def refused(answer: Any) -> str:
    """Why an answer is refused, as a whole or for an event of it."""
    try:
        given = answer if isinstance(answer, bytes) else made.as_bytes(answer)
        faults = [one.fault for one in check(given) if one.fault is not None]
    except (OpenedError, NoteError) as error:
        return error.detail
    assert faults, "it was accepted"
    return faults[0]


def without_unproven(value: Any) -> Any:
    """A part of an answer without the members that nothing proves, nor the proof itself."""
    if isinstance(value, list):
        return [without_unproven(one) for one in value]
    if not isinstance(value, dict):
        return value
    dropped = {"subject_ref", "purpose", "schema_status", "proof", "checkpoint", "as_of", "next"}
    if "pointer" in value:
        dropped |= {"reason", "at", "erasure_id"}
    return {name: without_unproven(one) for name, one in value.items() if name not in dropped}


FORMS: dict[str, Callable[[], Any]] = {"page": made.page, "event": made.single, "stream": made.stream}


@pytest.mark.parametrize("form", FORMS)
def test_what_was_recorded_is_proven_offline(form: str) -> None:
    """A page, a single event and a stream, with the public key alone: what is proven is all that is shown but what is
    named as unproven."""
    answer = FORMS[form]()
    members = proven(made.as_bytes(answer))
    shown = {"page": made.SHOWN, "event": made.SHOWN[:1], "stream": made.SHOWN}[form]
    assert members == [without_unproven(one) for one in shown]


def test_what_is_hidden_is_counted_and_stays_hidden() -> None:
    """Of an erased part nothing comes along, and the rest of its event is proven all the same."""
    found = check(made.as_bytes(made.page()))
    assert [(one.proven.opened, one.proven.hidden) for one in found if one.proven is not None] == [
        (4, 0),
        (1, 1),
        (1, 0),
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_altered_byte_is_refused_or_changes_nothing_that_is_proven(form: str, change: int) -> None:
    """Each byte of text, key, part, leaf, proof, note and of what stands around them, one after another: the file is
    refused; or everything in it but the unproven members is as it was."""
    good = made.as_bytes(FORMS[form]())
    expected, shown = proven(good), without_unproven(_lines(good))
    accepted = set()
    for index in range(len(good)):
        altered = good[:index] + bytes((good[index] ^ change,)) + good[index + 1 :]
        try:
            found = check(altered)
        except (OpenedError, NoteError):
            continue
        if any(one.fault is not None for one in found):
            continue
        assert [one.proven.members for one in found if one.proven is not None] == expected
        assert without_unproven(_lines(altered)) == shown
        accepted.add(index)
    # What may be altered is little: the digits of refs, purposes, reasons and times that nothing proves, white space.
    assert len(accepted) < len(good) // 4


def _lines(answer: bytes) -> list[Any]:
    return [json.loads(line) for line in answer.splitlines()]


def altered(change: Callable[[dict[str, Any]], Any], number: int = 0) -> dict[str, Any]:
    """A page of which one event was altered."""
    answer = made.page()
    change(answer["events"][number])
    return answer


MEMBERS: list[tuple[str, Any]] = [
    ("position", 1),
    ("position", 0.0),
    ("position", False),
    ("id", "0193A5E0-7C00-7000-8000-000000000E00"),
    ("type", "Discharge"),
    ("schema_version", 2),
    ("schema_version", True),
    ("stream", "patient-B"),
    ("stream", None),
    ("stream_ref", "str_" + "0" * 32),
    ("stream_version", 2),
    ("category", "ward"),
    ("recorded_at", "2023-11-14T22:13:20Z"),
    ("occurred_at", None),
    ("recorded_by", "00000000-0000-0000-0000-000000000000"),
    ("correlation_id", "00000000-0000-0000-0000-000000000007"),
    ("causation_id", None),
    ("subject", "patient:B"),
    ("data", {"age": 85, "weight": 71.5, "note": "für „B“"}),
    ("data", {"age": 85.0, "weight": 71.5, "note": "für „A“"}),
    ("data", None),
    ("actor", None),
    ("actor", {"subject": "nurse:M", "subject_ref": None, "data": {}}),
    ("actor", {"subject": "nurse:N", "subject_ref": None, "data": None}),
    ("actor", {"subject": "nurse:N", "subject_ref": None, "data": {}, "title": "Dr"}),
    ("parts", []),
    ("parts", [{"subject": "friend:F", "subject_ref": None, "purpose": "", "data": {"phone": "2"}}]),
    ("nonpersonal", {}),
    ("redactions", [made.ERASED]),
    ("shown_version", 2),
    ("subject_ref", "patient:A"),
    ("purpose", 7),
    ("schema_status", "proven"),
]


@pytest.mark.parametrize(("name", "value"), MEMBERS)
def test_every_member_is_held_to_leaf_and_parts(name: str, value: Any) -> None:
    """Another value, the same value of another type, or a form that no answer has: refused."""
    refused(altered(lambda event: event.update({name: value})))


@pytest.mark.parametrize("name", [*made.SHOWN[0], "checkpoint"])
def test_no_member_may_be_missing(name: str) -> None:
    """Whatever is left out, the event is refused."""
    answer = made.single()
    del answer[name]
    refused(answer)


@pytest.mark.parametrize("where", ["page", "event", "proof", "part", "end"])
def test_nothing_may_be_added(where: str) -> None:
    """A member that nobody checks could say anything."""
    page, lines = made.page(), made.stream()
    holders = {
        "page": page,
        "event": page["events"][0],
        "proof": page["events"][0]["proof"],
        "part": page["events"][0]["proof"]["parts"][0],
        "end": lines[-1],
    }
    holders[where]["verdict"] = "guilty"
    refused(lines if where == "end" else page)


@pytest.mark.parametrize("member", ["reason", "at", "erasure_id", "subject_ref", "purpose"])
def test_of_redactions_only_the_place_is_proven(member: str) -> None:
    """That a part is hidden is told by the leaf; since when and why, by the service alone."""
    values = {"reason": "restricted", "purpose": "billing"}

    def change(event: dict[str, Any]) -> None:
        event["redactions"][0][member] = values.get(member)

    proven(made.as_bytes(altered(change, 1)))
    refused(altered(lambda event: event["redactions"][0].update(pointer="/actor"), 1))
    refused(altered(lambda event: event["redactions"].clear(), 1))
    assert len(UNPROVEN) == 4


def test_a_part_cannot_be_hidden_or_opened_that_was_not() -> None:
    """What the file says is hidden is what did not come along."""
    refused(altered(lambda event: event["proof"]["parts"].pop(0)))
    refused(altered(lambda event: event.update(data=None, redactions=[made.ERASED])))
    refused(altered(lambda event: event.update(data={"age": 1}), 1))


def test_another_events_proof_or_parts_do_not_do() -> None:
    """Leaf, parts and text belong together; a part opens in its own event and place only."""
    other = made.page()["events"][1]["proof"]
    refused(altered(lambda event: event.update(proof=other)))
    refused(altered(lambda event: event["proof"].update(parts=other["parts"])))
    refused(altered(lambda event: event["proof"].update(hashes=other["hashes"])))
    refused(altered(lambda event: event["proof"].update(index=1)))
    refused(altered(lambda event: event["proof"]["parts"].reverse()))
    refused(altered(lambda event: event["proof"]["parts"].append(event["proof"]["parts"][-1])))

    def swap(event: dict[str, Any]) -> None:
        first, second = event["proof"]["parts"][:2]
        first["sealed"], second["sealed"] = second["sealed"], first["sealed"]

    refused(altered(swap))


@pytest.mark.parametrize("number", [-1, 4, 2**70, True, 1.0, "1", None])
def test_part_numbers_are_those_of_the_leaf(number: Any) -> None:
    """Anything else is no part number."""
    refused(altered(lambda event: event["proof"]["parts"][0].update(part=number)))


def test_of_two_spellings_of_base64_one_is_taken() -> None:
    """Stray bits, missing padding, the other alphabet and white space are refused."""
    key = made.page()["events"][0]["proof"]["parts"][0]["key"]
    assert key.endswith("=")
    stray = key[:-2] + chr(ord(key[-2]) + 1) + "="
    for wrong in (stray, key.rstrip("="), key + "\n", " " + key, key.replace("/", "_").replace("+", "-") + "="):
        answer = made.page()
        answer["events"][0]["proof"]["parts"][0]["key"] = wrong
        refused(answer)


@pytest.mark.parametrize(
    "digits", ["71.50", "7150e-2", "71.50000000000000000000001", "71.49999999999999999999999", "7.15e1"]
)
def test_numbers_are_held_to_their_digits(digits: str) -> None:
    """Two numbers that Python rounds to one float are two numbers to whoever reads the file."""
    answer = made.as_bytes(made.page())
    altered = answer.replace(b'"weight":71.5', b'"weight":' + digits.encode())
    assert altered != answer
    assert "data is not what was recorded" in refused(altered)


def test_the_same_member_twice_is_refused() -> None:
    """Two readers could take one each for what was proven."""
    answer = made.as_bytes(made.single()).replace(b'"type":', b'"type":"Discharge","type":', 1)
    with pytest.raises(OpenedError, match="same key twice"):
        check(answer)


def test_another_logs_signature_is_refused() -> None:
    """Whoever signs with another key, or under another name, proves nothing."""
    for by, name in ((SigningKey.generate(), made.KEY.name), (made.LOG, "ledger.example/other")):
        answer = {**made.page(), "checkpoint": made.note_of(made.HASHES, by=by, name=name)}
        assert "no signature" in refused(answer)


def test_a_tree_without_the_event_is_refused() -> None:
    """The checkpoint must be one that the event stands in."""
    refused({**made.page(), "checkpoint": made.note_of(made.HASHES[:2])})
    refused({**made.page(), "checkpoint": made.note_of([*made.HASHES, bytes(32)])})


def test_a_stream_that_broke_off_is_refused() -> None:
    """Whatever line is missing; and one behind the end as well."""
    lines = made.stream()
    for number in range(len(lines)):
        refused(lines[:number] + lines[number + 1 :])
    refused([*lines, lines[1]])
    assert "broke off" in refused(lines[:1])


def test_a_page_is_of_a_moment_that_its_checkpoint_reaches() -> None:
    """And shows nothing of later."""
    for position in (3, 1, -2, True, "2"):
        answer = made.page()
        answer["as_of"]["position"] = position
        refused(answer)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("behind", [True, False])
def test_no_event_stands_in_a_file_twice(number: int, behind: bool) -> None:
    """One withdrawal would look like two; in a page and in a stream, next to each other or apart."""
    page, lines = made.page(), made.stream()
    again = copy.deepcopy(page["events"][number])
    page["events"].insert(3 if behind else number, again)
    lines.insert(4 if behind else number + 1, again)
    lines[-1]["count"] += 1
    repeated = 4 if behind else number + 2
    for answer in (page, lines):
        found = check(made.as_bytes(answer))
        assert [one.number for one in found if one.fault is not None] == [repeated]
        assert "stands in the file before" in refused(answer)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_events_may_come_in_any_order(order: Sequence[int]) -> None:
    """A query can ask for the newest first, or by when they occurred."""
    lines = made.stream()
    assert len(proven(made.as_bytes([lines[0], *(lines[1 + number] for number in order), lines[-1]]))) == 3


def test_positions_are_remembered_wherever_they_lie() -> None:
    """At the edges of what is kept together, far apart, and each on its own."""
    seen, chunk = opened_files._Positions(), opened_files._CHUNK
    some = [0, 1, 7, 8, chunk - 1, chunk, chunk + 8, 2**40, 2**63 - 1]
    assert [seen.add(position) for position in [*some, *some]] == [True] * len(some) + [False] * len(some)


def test_events_of_one_file_are_of_one_ledger() -> None:
    """A log holds one ledger: an operator who mixes two is found out."""
    stranger = made.record(1, [(Role.NONPERSONAL, made.OWN, {"data": {}})], ledger_id=made.WRITER)
    hashes = [made.HASHES[0], hash_leaf(stranger.leaf)]
    first = {**made.SHOWN[0], "proof": made.proof_of(made.EVENTS[0], 0, hashes, [0, 1, 2, 3])}
    second = made.envelope_shown(1, nonpersonal={}, proof=made.proof_of(stranger, 1, hashes, [0]))
    lines = [{"checkpoint": made.note_of(hashes)}, first, second, {"end": True, "count": 2}]
    assert "another ledger" in refused(lines)


def one_event(*contents: tuple[Role, DataKey | None, Any], **shown: Any) -> dict[str, Any]:
    """A single event with parts of one's own choice, and a proof that holds."""
    event = made.record(0, contents)
    proof = made.proof_of(event, 0, [hash_leaf(event.leaf)], range(len(contents)))
    return {**made.envelope_shown(0, proof=proof, **shown), "checkpoint": made.note_of([hash_leaf(event.leaf)])}


def test_what_an_operator_seals_must_have_one_meaning() -> None:
    """Two subjects, two streams, a member twice, members that the service does not seal: refused, though authentic."""
    assert proven(made.as_bytes(one_event((Role.NONPERSONAL, made.OWN, {"data": {}}), nonpersonal={})))
    subject = (Role.SUBJECT, made.PATIENT, {"subject": "patient:A", "data": {}})
    refused(one_event(subject, subject, subject="patient:A", data={}))
    streams = [(Role.NONPERSONAL, made.OWN, {"stream": "patient-A"}), (Role.STREAM_NAME, made.OWN, {"stream": "x-B"})]
    refused(one_event(*streams, stream="patient-A"))
    for text in ('{"data":{},"data":{"a":1}}', '{"data":{},"more":1}', '{"data":[]}', '{"stream":1}', "[]", "{", ""):
        refused(one_event((Role.NONPERSONAL, made.OWN, text), nonpersonal={}))


def test_a_part_that_was_built_to_open_to_two_texts_does_not_open_to_the_second() -> None:
    """The operator's best attempt: a ciphertext that AES-GCM opens under two keys, recorded with the commitment to the
    one. With the other key the file is refused."""
    sealed = FORMAT + bytes(16) + _commit(ONE) + ATTACK
    answer = altered(lambda event: event["proof"]["parts"][0].update(sealed=made.b64(sealed), key=made.b64(ONE)))
    assert "not the one that was recorded" in refused(answer)


def test_only_a_place_is_no_proof_of_a_text() -> None:
    """An answer with ``"proof": true`` says so when it is taken for more."""

    def only_place(event: dict[str, Any]) -> None:
        for name in ("leaf", "parts"):
            del event["proof"][name]

    assert "only its place" in refused(altered(only_place))
    answer = made.page()
    del answer["checkpoint"]
    assert "no checkpoint" in refused(answer)


@pytest.mark.parametrize("answer", [b"", b"\n", b"[]", b"1", b"{}", b"nonsense", b"\xff", b"[" * 100_000])
def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    """In one line, whatever it is."""
    with pytest.raises(OpenedError):
        check(answer)


def test_what_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's file takes all of the memory."""
    monkeypatch.setattr(opened_files, "LONGEST_LINE", 200)
    monkeypatch.setattr(opened_files, "LARGEST_FILE", 300)
    assert "larger than" in refused(made.page())
    monkeypatch.setattr(opened_files, "LONGEST_LINE", 400)
    assert "larger than" in refused(made.stream())


def test_no_complaint_repeats_what_the_file_says() -> None:
    """I5: a name or a text never gets into a message."""
    answer = made.page()
    for event in copy.deepcopy(answer["events"]):
        for name in event:
            event[name] = {"canary": "canary"}
            assert "canary" not in refused({**answer, "events": [event]})
    assert base64.b64decode(made.page()["events"][0]["proof"]["leaf"]) == made.EVENTS[0].leaf
