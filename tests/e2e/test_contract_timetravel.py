"""What an auditor may rely on when asking how things stood, what changed, and what a field ever was."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Tenant, make_tenant
from tests.support.server import Answer

STATE_MEMBERS = ["stream_ref", "stream_version", "state", "complete", "redactions", "unknown_versions"]
CAUSE_MEMBERS = ["id", "position", "type", "actor", "actor_ref", "recorded_at", "occurred_at"]
BEGINNING = {"position": 0}


def an_account(owner: str, kind: str, data: dict[str, Any], actor: str | None = None, **more: Any) -> dict[str, Any]:
    """An event of somebody's account."""
    event = {"stream": f"account-{owner}", "type": kind, "subject": f"customer:{owner}", "data": data, **more}
    return event if actor is None else {**event, "actor": actor}


@pytest.fixture
def bank(tenant: Tenant) -> Tenant:
    """A ledger with two accounts. On March 10 the address of March 5 came in, late."""
    events = [
        an_account("A", "Opened", {"iban": "X1", "city": "Bern"}, "clerk:C", occurred_at="2026-03-01T09:00:00Z"),
        an_account("B", "Opened", {"iban": "Y1"}, "clerk:C", occurred_at="2026-03-02T09:00:00Z"),
        an_account("A", "Moved", {"city": "Genf"}, "clerk:D", occurred_at="2026-03-08T09:00:00Z"),
        an_account("A", "IbanChanged", {"iban": "X2"}, "clerk:D", occurred_at="2026-03-09T09:00:00Z"),
        an_account("A", "Moved", {"city": "Thun"}, "clerk:C", occurred_at="2026-03-05T09:00:00Z"),
    ]
    for event in events:
        assert tenant.client.post(f"{tenant.path}/events", event).status == 201
    return tenant


def ask(bank: Tenant, what: str, question: dict[str, Any]) -> Any:
    """An answer that must be there, and that nobody may keep."""
    answer: Answer = bank.client.post(f"{bank.path}/{what}", question)
    assert answer.status == 200, answer.body
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def test_states_of_a_category_and_of_a_subject_in_pages(bank: Tenant) -> None:
    """The same as `state` says of each stream, at one moment for all pages."""
    first = ask(bank, "states", {"category": "account", "limit": 1})
    second = ask(bank, "states", {"cursor": first["next"], "limit": 1})
    found = first["states"] + second["states"]
    each = [ask(bank, "state", {"stream_ref": state["stream_ref"]}) for state in found]

    assert list(first) == ["as_of", "next", "states"]
    assert [list(state) for state in found] == [STATE_MEMBERS] * 2
    assert second["next"] is None
    assert first["as_of"] == second["as_of"] == each[0].pop("as_of")
    assert [found[0], {"as_of": second["as_of"], **found[1]}] == each
    of_b = ask(bank, "states", {"subject": "customer:B"})
    assert [state["state"] for state in of_b["states"]] == [{"iban": "Y1"}]
    assert ask(bank, "states", {"category": "account", "as_of": BEGINNING})["states"][0]["stream_version"] == 1
    assert ask(bank, "states", {"subject": "nobody"})["states"] == []


def test_states_on_both_axes(bank: Tenant) -> None:
    """What was known on one day of how things stood on another; what had not occurred by then is left out."""
    march_6 = "2026-03-06T00:00:00Z"

    def cities(**moments: Any) -> list[str | None]:
        states = ask(bank, "states", {"category": "account", **moments})["states"]
        return sorted((state["state"].get("city") for state in states), key=str)

    assert cities() == [None, "Thun"]
    assert cities(occurred_as_of=march_6) == [None, "Thun"]
    assert cities(occurred_as_of=march_6, as_of={"position": 3}) == ["Bern", None]
    assert cities(occurred_as_of="2026-03-20T00:00:00Z") == ["Genf", None]
    assert cities(occurred_as_of="2026-03-01T12:00:00Z") == ["Bern"]


def test_diff_of_a_stream_names_the_event_and_the_actor(bank: Tenant) -> None:
    """By name or by ref, by position or by time."""
    answer = ask(bank, "diff", {"stream": "account-A", "old_as_of": BEGINNING})
    city, iban = answer["changes"]

    assert list(answer) == ["old_as_of", "new_as_of", "next", "streams", "changes"]
    assert list(city) == ["stream_ref", "path", "op", "old", "new", "event"]
    assert list(city["event"]) == CAUSE_MEMBERS
    assert (city["path"], city["op"], city["old"], city["new"]) == ("/city", "replace", "Bern", "Thun")
    assert (iban["path"], iban["old"], iban["new"]) == ("/iban", "X1", "X2")
    assert (city["event"]["position"], city["event"]["type"], city["event"]["actor"]) == (4, "Moved", "clerk:C")
    assert city["event"]["occurred_at"] == "2026-03-05T09:00:00.000000Z"
    (stream,) = answer["streams"]
    assert (stream["old_version"], stream["new_version"], stream["complete"]) == (1, 4, True)
    again = {"stream_ref": stream["stream_ref"], "old_as_of": answer["old_as_of"]["recorded_at"]}
    assert ask(bank, "diff", {**again, "new_as_of": answer["new_as_of"]["recorded_at"]}) == answer


def test_diff_of_a_category_has_only_streams_with_events_in_between(bank: Tenant) -> None:
    """Page by page."""
    assert [change["path"] for change in ask(bank, "diff", {"category": "account", "old_as_of": {"position": 1}})[
        "changes"
    ]] == ["/city", "/iban"]  # fmt: skip
    first = ask(bank, "diff", {"category": "account", "old_as_of": BEGINNING, "limit": 1})
    second = ask(bank, "diff", {"cursor": first["next"], "limit": 1})

    assert second["next"] is None
    changes = first["changes"] + second["changes"]
    assert sorted((change["path"], change["op"]) for change in changes) == [
        ("/city", "replace"),
        ("/iban", "add"),
        ("/iban", "replace"),
    ]
    assert (first["old_as_of"], first["new_as_of"]) == (second["old_as_of"], second["new_as_of"])


def test_diff_of_what_was_believed_about_one_day(bank: Tenant) -> None:
    """Between two recorded moments, about one occurred moment: the late event is the change."""
    march_6 = "2026-03-06T00:00:00Z"
    question = {"stream": "account-A", "old_as_of": {"position": 3}}

    answer = ask(bank, "diff", {**question, "old_occurred_as_of": march_6, "new_occurred_as_of": march_6})

    assert [(change["path"], change["old"], change["new"]) for change in answer["changes"]] == [
        ("/city", "Bern", "Thun")
    ]
    assert answer["changes"][0]["event"]["position"] == 4


def test_history_of_a_field_in_pages_on_both_axes(bank: Tenant) -> None:
    """Every value with the event that gave it, in the order in which they count."""
    question = {"stream": "account-A", "path": "/city"}
    first = ask(bank, "history", {**question, "limit": 2})
    second = ask(bank, "history", {**question, "limit": 2, "cursor": first["next"]})
    occurred = ask(bank, "history", {**question, "occurred_as_of": "2026-03-20T00:00:00Z"})

    assert list(first) == ["as_of", "stream_ref", "next", "values"]
    assert list(first["values"][0]) == ["value", "absent", "redactions", "event"]
    assert list(first["values"][0]["event"]) == CAUSE_MEMBERS
    assert [value["value"] for value in first["values"] + second["values"]] == ["Bern", "Genf", "Thun"]
    assert second["next"] is None
    assert [value["value"] for value in occurred["values"]] == ["Bern", "Thun", "Genf"]
    assert [value["event"]["actor"] for value in occurred["values"]] == ["clerk:C", "clerk:C", "clerk:D"]
    assert ask(bank, "history", {**question, "path": "/nothing"})["values"] == []


def test_a_cursor_of_another_ledger_is_refused(bank: Tenant) -> None:
    """Though the same was recorded there: it would begin behind streams that nobody has seen."""
    other = make_tenant(bank.server)
    for owner in "AB":
        event = an_account(owner, "Opened", {"iban": "X1"})
        assert other.client.post(f"{other.path}/events", event).status == 201
    questions: dict[str, dict[str, Any]] = {
        "states": {"category": "account", "limit": 1},
        "diff": {"category": "account", "old_as_of": BEGINNING, "limit": 1},
        "query": {"limit": 1},
    }
    for what, question in questions.items():
        answer = other.client.post(f"{other.path}/{what}", {"cursor": ask(bank, what, question)["next"]})

        assert (answer.status, answer.code) == (422, "invalid")
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/cursor"]


def test_large_values_make_small_pages(bank: Tenant) -> None:
    """A page with fewer than its limit can have others behind it."""
    for number in range(6):
        event = {"stream": "file-1", "type": "Kept", "nonpersonal": {f"k{number}": "z" * 900_000}}
        assert bank.client.post(f"{bank.path}/events", event).status == 201
    question = {"stream": "file-1", "path": ""}
    first = ask(bank, "history", question)
    second = ask(bank, "history", {**question, "cursor": first["next"]})

    assert [len(page["values"]) for page in (first, second)] == [3, 2]
    assert [len(value["value"]) for value in first["values"] + second["values"]] == [1, 2, 3, 4, 5]


def test_after_an_erasure_no_answer_shows_anything_of_the_subject(bank: Tenant) -> None:
    """Each says what is missing; others' data stays."""
    questions: dict[str, dict[str, Any]] = {
        "states": {"category": "account"},
        "diff": {"category": "account", "old_as_of": BEGINNING},
        "history": {"stream": "account-A", "path": "/iban"},
    }
    history = ask(bank, "history", questions["history"])
    questions["history"] = {"stream_ref": history["stream_ref"], "path": "/iban"}
    order = {"subject": "customer:A", "ground": "17(1)(b)", "reference": "case 1"}
    assert bank.client.post(f"{bank.path}/erasures", order).status == 201

    answers = {what: ask(bank, what, question) for what, question in questions.items()}

    for answer in answers.values():
        assert not any(word in str(answer) for word in ("X1", "X2", "Bern", "Genf", "Thun", "customer:A"))
    assert "Y1" in str(answers["states"])
    assert sorted(state["complete"] for state in answers["states"]["states"]) == [False, True]
    assert [change["path"] for change in answers["diff"]["changes"]] == ["/iban"]
    assert sorted(stream["complete"] for stream in answers["diff"]["streams"]) == [False, True]
    values = answers["history"]["values"]
    assert [(value["value"], value["absent"]) for value in values] == [(None, None)] * 4
    assert {redaction["reason"] for value in values for redaction in value["redactions"]} == {"erased"}


A_MOMENT = "2026-03-06T00:00:00Z"


@pytest.mark.parametrize(
    ("what", "question", "pointer"),
    [
        ("states", {}, "/category"),
        ("states", {"category": "account", "subject": "customer:A"}, "/subject"),
        ("states", {"category": "account", "subject_ref": "sub_" + "0" * 32}, "/subject_ref"),
        ("states", {"subject": "customer:A", "subject_ref": "sub_" + "0" * 32}, "/subject_ref"),
        ("states", {"category": "not a word"}, "/category"),
        ("states", {"category": "account", "as_of": {"position": 99}}, "/as_of"),
        ("states", {"category": "account", "as_of": "2999-01-01T00:00:00Z"}, "/as_of"),
        ("states", {"category": "account", "limit": 1001}, "/limit"),
        ("states", {"cursor": "customer:A"}, "/cursor"),
        ("states", {"category": "account", "stream": "account-A"}, ""),
        ("diff", {"old_as_of": BEGINNING}, "/stream"),
        ("diff", {"stream": "account-A"}, "/old_as_of"),
        ("diff", {"stream": "account-A", "category": "account", "old_as_of": BEGINNING}, "/stream"),
        ("diff", {"stream": "account-A", "old_as_of": BEGINNING, "cursor": "x"}, "/cursor"),
        ("diff", {"stream": "account-A", "old_as_of": {"position": 3}, "new_as_of": {"position": 2}}, "/old_as_of"),
        (
            "diff",
            {"stream": "account-A", "old_as_of": BEGINNING, "new_occurred_as_of": A_MOMENT},
            "/old_occurred_as_of",
        ),
        ("diff", {"category": "account", "cursor": "x"}, "/cursor"),
        ("history", {"stream": "account-A"}, "/path"),
        ("history", {"stream": "account-A", "path": "iban"}, "/path"),
        ("history", {"stream": "account-A", "path": None}, "/path"),
        ("history", {"path": "/iban"}, "/stream"),
        ("history", {"stream": "account-A", "path": "/iban", "cursor": "x"}, "/cursor"),
        ("history", {"stream": "account-A", "path": "/iban", "occurred_as_of": "yesterday"}, "/occurred_as_of"),
    ],
)
def test_a_question_that_is_not_valid_is_refused_without_repeating_it(
    bank: Tenant, what: str, question: dict[str, Any], pointer: str
) -> None:
    """422, with a pointer to what is wrong."""
    answer = bank.client.post(f"{bank.path}/{what}", question)

    assert (answer.status, answer.code) == (422, "invalid")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert b"customer:A" not in answer.body
    assert b"account-A" not in answer.body


@pytest.mark.parametrize("what", ["state", "diff", "history"])
def test_a_stream_that_nobody_knows_is_not_found(bank: Tenant, what: str) -> None:
    """404, by name and by ref."""
    questions: dict[str, dict[str, Any]] = {"state": {}, "diff": {"old_as_of": BEGINNING}, "history": {"path": "/iban"}}
    more = questions[what]
    for stream in ({"stream": "account-Z"}, {"stream_ref": "str_" + "0" * 32}):
        answer = bank.client.post(f"{bank.path}/{what}", {**stream, **more})
        assert (answer.status, answer.code) == (404, "not-found")
