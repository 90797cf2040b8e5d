"""The witnesses of the settings: what cannot be meant is refused, who is away is left alone, changes are told once."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from uuid import UUID

import pytest

from api.config import Settings, SettingsError
from api.logs import LOGGER, JsonLines
from api.witnesses import HttpWitnesses, open_witnesses
from ledger.domain.notes import COSIGNATURE, VerifierKey
from ledger.ports.witness import WitnessOutcome, WitnessUnavailableError
from tests.support.logs import SignedLog, leaves
from tests.support.server import free_port

LEDGER_ID = UUID(int=1)
KEY = VerifierKey("w.example", COSIGNATURE, bytes(32)).text
NAMESAKE = VerifierKey("w.example", COSIGNATURE, bytes(31) + b"x").text


def opened(tmp_path: Path, policy: str, away: str = "warn") -> HttpWitnesses:
    """The witnesses of a policy file."""
    path = tmp_path / "policy"
    path.write_text(policy)
    environment = {"AUDIT_LEDGER_HOME": str(tmp_path / "home"), "AUDIT_LEDGER_WITNESSES": str(path)}
    settings = Settings.from_environment({**environment, "AUDIT_LEDGER_WITNESSES_AWAY": away})
    found = open_witnesses(settings, None)
    assert isinstance(found, HttpWitnesses)
    return found


@pytest.fixture
def lines() -> Iterator[StringIO]:
    """What is logged."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    log = logging.getLogger(LOGGER)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield stream
    log.removeHandler(handler)
    log.setLevel(before)


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("quorum w\n", "line 1 of the policy"),
        (f"witness w {KEY}\nquorum w\n", "the witness w has no URL"),
        (f"witness w {KEY} ftp://x/\nquorum w\n", "the URL of the witness w"),
        (f"witness w {KEY} http://user:secret@x/\nquorum w\n", "has no user"),
        ("", "no quorum line"),
        (
            f"witness a {KEY} http://x/\nwitness b {NAMESAKE} http://y/\ngroup g all a b\nquorum g\n",
            "the keys of the witnesses a and b have the same name, w.example",
        ),
    ],
)
def test_a_policy_that_cannot_be_used_stops_the_start(tmp_path: Path, policy: str, why: str) -> None:
    """With the name of the setting, and without what stands in a URL."""
    with pytest.raises(SettingsError, match=f"AUDIT_LEDGER_WITNESSES: .*{why}") as caught:
        opened(tmp_path, policy)
    assert "secret" not in str(caught.value)


def test_a_policy_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """Else nobody would notice that nothing is witnessed."""
    settings = Settings.from_environment({"AUDIT_LEDGER_WITNESSES": str(tmp_path / "none")})
    with pytest.raises(SettingsError, match="No such file"):
        open_witnesses(settings, None)
    with pytest.raises(SettingsError, match="must be warn or stop"):
        Settings.from_environment({"AUDIT_LEDGER_WITNESSES_AWAY": "never"})
    assert open_witnesses(Settings.from_environment({}), None) is None


def test_who_is_away_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as long each time, up to a bound; nobody waits for it meanwhile."""
    found = opened(tmp_path, f"witness w {KEY} http://127.0.0.1:{free_port()}/\nquorum w\n")
    (witness,) = found.all()
    body = SignedLog(leaves(1)).request(0, 1)
    now = [100.0]
    monkeypatch.setattr("api.witnesses.time.monotonic", lambda: now[0])
    rests = []
    for _ in range(7):
        with pytest.raises(WitnessUnavailableError, match="no connection"):
            witness.add_checkpoint(body)
        began = now[0]
        while witness.is_resting:
            with pytest.raises(WitnessUnavailableError, match="a moment ago"):
                witness.add_checkpoint(body)
            now[0] += 1.0
        rests.append(now[0] - began)
    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_changes_are_told_once(tmp_path: Path, lines: StringIO) -> None:
    """Of each witness and ledger; that all is well from the beginning is no change."""
    found = opened(tmp_path, f"witness w {KEY} http://x/\nquorum w\n", "stop")
    (witness,) = found.all()
    outcomes = WitnessOutcome
    sequence = (
        outcomes.COSIGNED,
        outcomes.AWAY,
        outcomes.AWAY,
        outcomes.REFUSED,
        outcomes.OVERTAKEN,
        outcomes.COSIGNED,
    )
    told = [found.note(LEDGER_ID, witness, outcome, "why") for outcome in sequence]
    assert told == [False, True, False, True, True, False]
    for reached in (True, False, False, True):
        found.note_quorum(LEDGER_ID, [] if reached else ["w"], reached=reached)
        assert found.is_waited_for == (not reached)
        assert found.has_just_failed(LEDGER_ID) == (not reached)
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line["event"] for line in logged] == [
        "witness-does-not-cosign",
        "witness-does-not-cosign",
        "witness-cosigns-again",
        "witness-quorum-missing",
        "witness-quorum-reached",
    ]
    assert logged[3]["missing"] == ["w"]
    assert logged[3]["publishing_waits"] is True


def test_new_evidence_always_has_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many checkpoints a witness has refused before: the first one stays, and the newest."""
    monkeypatch.setattr("api.evidence.NEWEST", 3)
    found = opened(tmp_path, f"witness w {KEY} http://x/\nquorum w\n")
    (witness,) = found.all()
    for size in range(10, 20):
        found.keep_evidence(LEDGER_ID, witness, size, "refused")
    kept = [path.stem.rpartition("-")[2] for path in (tmp_path / "home" / "evidence").iterdir()]
    assert sorted(kept) == ["10", "17", "18", "19"]


def test_evidence_is_written_once_for_its_owner_alone(tmp_path: Path, lines: StringIO) -> None:
    """The first text stays; a disk that takes nothing is told of and stops nothing."""
    found = opened(tmp_path, f"witness w {KEY} http://x/\nquorum w\n")
    (witness,) = found.all()
    for text in ("first", "second"):
        found.keep_evidence(LEDGER_ID, witness, 7, text)
    (path,) = (tmp_path / "home" / "evidence").iterdir()
    assert path.read_text() == "first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("a file where the folder should be")
    found.keep_evidence(LEDGER_ID, witness, 8, "third")
    assert "evidence-not-kept" in lines.getvalue()
