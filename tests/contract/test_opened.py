"""Opened answers out of a real ledger: everything that is shown is proven offline, and nothing comes along that the
reader may not see now."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from api.json_text import json_bytes, json_line
from api.opened_files import Outcome, verify_file
from api.rendering import render_proven_event, render_proven_page
from keyvault.signatures import verify_ed25519
from ledger.domain.catalogue import TypeDraft
from ledger.domain.checkpoints import open_checkpoint
from ledger.domain.merkle import hash_leaf, verify_inclusion
from ledger.domain.notes import NoteSignature, from_base64, parse_note
from ledger.domain.query import AsOf, EventQuery
from ledger.errors import NotFoundError
from ledger.services.evolution.types import register_type
from ledger.services.proving.answers import ProofKind, ProvenEvent, export_proven, query_proven, show_proven
from ledger.services.proving.publishing import log_key, publish
from ledger.services.read import query_events
from ledger.storage import tables
from tests.support.ledgers import PRIVACY_OFFICER, Ledger, a_fact, a_visit
from tests.support.populated import populate_derived, populate_log


def page_of(ledger: Ledger, kind: ProofKind = "opened", **query: Any) -> dict[str, Any]:
    """A page with proofs, as it is sent."""
    asked = EventQuery(**query)
    page = query_proven(ledger.deps, ledger.ledger_id, asked, kind, cursor=None, limit=1000)
    rendered: dict[str, Any] = json.loads(json_bytes(render_proven_page(page)))
    return rendered


def outcomes(ledger: Ledger, answer: bytes) -> list[Outcome]:
    """What becomes of each event of a file, checked with the public key alone."""
    key = log_key(ledger.deps, ledger.ledger_id)
    return list(verify_file(io.BytesIO(answer), lambda note: open_checkpoint(note, key, verify_ed25519))[1])


def faults(ledger: Ledger, answer: Any) -> list[str | None]:
    """What is wrong with each event of a page."""
    return [outcome.fault for outcome in outcomes(ledger, json_bytes(answer))]


def parts_of(event: dict[str, Any]) -> list[int]:
    """The parts that came along."""
    return [part["part"] for part in event["proof"]["parts"]]


def test_everything_that_a_ledger_can_hold_is_proven(ledger: Ledger) -> None:
    """Streams of people and of nobody, actors, copies, ends, restricted and erased people, processes, the ledger's own
    events: each event of an opened answer verifies offline."""
    populate_log(ledger)
    populate_derived(ledger)
    ledger.append(a_visit("D", actor="group:L", parts=[{"subject": "patient:B", "data": {"x": "ü"}}], nonpersonal={}))
    shown: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = query_proven(ledger.deps, ledger.ledger_id, None, "opened", cursor=cursor, limit=200)
        found = outcomes(ledger, json_bytes(render_proven_page(page)))
        assert [one.fault for one in found] == [None] * len(found)
        shown += [render_proven_event(event) for event in page.events]
        cursor = page.next
        if cursor is None:
            break
    assert [event["position"] for event in shown] == list(range(ledger.size()))
    assert {redaction["reason"] for event in shown for redaction in event["redactions"]} == {"erased", "restricted"}


def test_the_place_alone_is_proven_where_no_more_was_asked_for(ledger: Ledger) -> None:
    """``"proof": true``: the answer is as without, and each event's leaf hash is in the tree of the checkpoint."""
    ledger.append(*(a_visit("A") for _ in range(5)))
    answer = page_of(ledger, "placed")
    checkpoint = open_checkpoint(answer["checkpoint"], log_key(ledger.deps, ledger.ledger_id), verify_ed25519)
    for event, row in zip(answer["events"], ledger.recorded(), strict=True):
        proof = event.pop("proof")
        assert proof.keys() == {"index", "hashes"}
        verify_inclusion(
            index=proof["index"],
            size=checkpoint.size,
            leaf_hash=row.leaf_hash,
            proof=[from_base64(node) for node in proof["hashes"]],
            root=checkpoint.root,
        )
    plain = query_events(ledger.deps, ledger.ledger_id, EventQuery(), cursor=None, limit=1000)
    assert [event["data"] for event in answer["events"]] == [
        event.subject.data if event.subject else None for event in plain.events
    ]


def test_nothing_comes_along_of_what_may_not_be_read(ledger: Ledger) -> None:
    """Restricted, then erased: neither key nor sealed part; other people's parts and what concerns nobody do."""
    ledger.append(a_visit("A", actor="group:L", nonpersonal={"n": 1}))
    (before,) = page_of(ledger)["events"]
    assert parts_of(before) == [0, 1, 2]
    ref = ledger.subject_ref("patient:A")
    ledger.deps.vault.restrict(ledger.ledger_id, ref, ledger.deps.clock())
    restricted = page_of(ledger)
    assert (restricted["events"][0]["redactions"][0]["reason"], parts_of(restricted["events"][0])) == (
        "restricted",
        [1, 2],
    )
    assert before["proof"]["parts"][0]["sealed"] not in json.dumps(restricted)
    ledger.deps.vault.lift_restriction(ledger.ledger_id, ref, ledger.deps.clock())
    ledger.erase("patient:A")
    erased = page_of(ledger)
    assert (erased["events"][0]["redactions"][0]["reason"], parts_of(erased["events"][0])) == ("erased", [1, 2])
    assert faults(ledger, restricted) == faults(ledger, erased)[:1] == [None]


def test_a_key_that_was_given_away_before_still_opens_its_part_and_no_other(ledger: Ledger) -> None:
    """The other side of a proof: what somebody has been shown stays shown. Every sealing has a key of its own."""
    ledger.append(a_visit("A"), a_visit("A"))
    given = page_of(ledger)
    ledger.erase("patient:A")
    assert faults(ledger, given) == [None, None]
    one, other = (event["proof"]["parts"][0] for event in given["events"])
    assert one["key"] != other["key"]
    one["key"], other["key"] = other["key"], one["key"]
    assert all("does not open" in (fault or "") for fault in faults(ledger, given))


def test_what_the_ledger_calls_erased_is_disclosed_by_no_vault(ledger: Ledger) -> None:
    """I9: a key that an old copy of the vault brings back opens nothing for a proof either."""
    ledger.append(a_visit("A"))
    living = ledger.deps.vault.look_up_keys(ledger.ledger_id, [ledger.key_of("patient:A")])
    ledger.erase("patient:A")
    restored = ledger.with_parts(vault=_VaultWith(ledger.deps.vault, living))
    event = page_of(restored)["events"][0]
    assert (event["data"], event["redactions"][0]["reason"], parts_of(event)) == (None, "erased", [])


class _VaultWith:
    """A vault that knows some keys still."""

    def __init__(self, inner: Any, views: Any) -> None:
        self._inner, self._views = inner, views
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def look_up_keys(self, *arguments: Any, **options: Any) -> Any:
        """With those keys living."""
        self.looks += 1
        return {**self._inner.look_up_keys(*arguments, **options), **self._views}


def test_a_page_costs_one_look_at_the_vault(ledger: Ledger) -> None:
    """As without proofs."""
    ledger.append(*(a_visit(name) for name in "ABCABC"))
    vault = _VaultWith(ledger.deps.vault, {})
    assert len(page_of(ledger.with_parts(vault=vault))["events"]) == 6
    assert vault.looks == 1


def lines_of(note: str, pages: Iterable[Sequence[ProvenEvent]]) -> bytes:
    """A stream as it is sent."""
    events = [json_line(render_proven_event(event)) for page in pages for event in page]
    return b"".join([json_line({"checkpoint": note}), *events, json_line({"end": True, "count": len(events)})])


def test_a_stream_has_one_checkpoint_and_looks_at_the_keys_for_every_page(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7: what is erased while it is under way is disclosed by no later page; what is appended meanwhile is not in it;
    all of it verifies under the checkpoint that it began with."""
    monkeypatch.setattr("ledger.services.read._FIRST_PAGE", 2)
    ledger.append(*(a_visit("A") for _ in range(6)))
    note, pages = export_proven(ledger.deps, ledger.ledger_id, EventQuery(), "opened")
    first = next(pages)
    ledger.erase("patient:A")
    rest = list(pages)
    answer = lines_of(note, [first, *rest])
    found = outcomes(ledger, answer)
    assert [one.fault for one in found] == [None] * 6
    assert [one.proven.opened for one in found if one.proven is not None] == [1, 1, 0, 0, 0, 0]
    assert parse_note(note).text.splitlines()[1] == "6"


def test_the_checkpoint_reaches_as_far_as_the_answer_looks(ledger: Ledger) -> None:
    """Also an empty one, of an empty ledger; a page that goes on later has one of its own."""
    empty = page_of(ledger)
    assert (empty["events"], faults(ledger, empty)) == ([], [])
    ledger.append(*(a_visit("A") for _ in range(3)))
    first = query_proven(ledger.deps, ledger.ledger_id, EventQuery(), "opened", cursor=None, limit=2)
    ledger.append(a_fact())
    second = query_proven(ledger.deps, ledger.ledger_id, None, "opened", cursor=first.next, limit=2)
    for page in (first, second):
        assert set(faults(ledger, render_proven_page(page))) == {None}
        assert int(page.checkpoint.splitlines()[1]) >= page.as_of.position + 1


def test_a_checkpoint_that_a_witness_has_cosigned_is_taken_where_it_reaches(ledger: Ledger) -> None:
    """It shows more than a newer one without; what lies behind it needs the newer one."""
    ledger.append(a_visit("A"), a_visit("A"))
    cosigned = publish(ledger.deps, ledger.ledger_id, at_least=2)
    line = str(NoteSignature("w.example", b"w" * 4, bytes(72)).line)
    ledger.deps.transparency.add_cosignature(
        ledger.ledger_id, cosigned.origin, cosigned.size, name="w.example", line=line, timestamp=1
    )
    ledger.append(a_fact())
    publish(ledger.deps, ledger.ledger_id, at_least=3)
    earlier = page_of(ledger, as_of=AsOf(position=1))
    assert (earlier["checkpoint"], faults(ledger, earlier)) == (cosigned.note + line, [None, None])
    assert page_of(ledger)["checkpoint"].splitlines()[1] == "3"


def test_one_event_by_its_id(ledger: Ledger) -> None:
    """With the checkpoint beside its members."""
    event_id = ledger.append(a_visit("A"), a_visit("B")).events[1].event_id
    note, event = show_proven(ledger.deps, ledger.ledger_id, event_id, "opened")
    assert faults(ledger, {**render_proven_event(event), "checkpoint": note}) == [None]
    with pytest.raises(NotFoundError):
        show_proven(ledger.deps, ledger.ledger_id, ledger.deps.new_id(), "opened")


def test_what_is_opened_is_shown_as_it_was_recorded(ledger: Ledger) -> None:
    """A newer shape of the type is not what anybody recorded."""
    ledger.append(a_visit("A"))
    register_type(ledger.deps, ledger.ledger_id, TypeDraft("Visit", 1), PRIVACY_OFFICER)
    renamed = [{"rename": {"from": "/crp", "to": "/mg_per_l"}}]
    register_type(ledger.deps, ledger.ledger_id, TypeDraft("Visit", 2, upcast=renamed), PRIVACY_OFFICER)
    placed, opened = page_of(ledger, "placed")["events"][0], page_of(ledger)["events"][0]
    assert (placed["data"], placed["shown_version"]) == ({"mg_per_l": 12}, 2)
    assert (opened["data"], opened["shown_version"], opened["schema_status"]) == ({"crp": 12}, 1, "as-recorded")
    assert faults(ledger, page_of(ledger)) == [None]


ALTERED: dict[str, Any] = {"category": "ward", "event_type": "Discharge", "recorded_at": 5, "stream_version": 9}


@pytest.mark.parametrize("column", ALTERED)
def test_a_row_that_was_altered_is_not_proven(ledger: Ledger, column: str) -> None:
    """I10: the answer is given, with an alarm and without a key; offline that event fails and the others hold."""
    ledger.append(a_visit("A"), a_visit("B"))
    events = tables.events
    of_it = sa.and_(events.c.ledger_id == ledger.ledger_id, events.c.position == 0)
    page_of(ledger)
    ledger.backend.tamper(sa.update(events).where(of_it).values({column: ALTERED[column]}))
    answer = page_of(ledger)
    assert parts_of(answer["events"][0]) == []
    assert ledger.alarms != []
    first, second = faults(ledger, answer)
    assert first is not None
    assert second is None


def test_a_row_that_no_leaf_can_hold_is_said_to_have_none(ledger: Ledger) -> None:
    """Altered to a type that is not ASCII: the page is not lost for it."""
    ledger.append(a_visit("A"))
    page_of(ledger)
    events = tables.events
    of_it = sa.and_(events.c.ledger_id == ledger.ledger_id, events.c.position == 0)
    ledger.backend.tamper(sa.update(events).where(of_it).values(event_type="Entlaßung"))
    answer = page_of(ledger)
    assert answer["events"][0]["proof"]["leaf"] is None
    assert faults(ledger, answer) == ["the service had no leaf for it: its row was altered"]


def test_the_leaf_that_comes_along_is_the_recorded_one(ledger: Ledger) -> None:
    """Byte for byte what the log's leaf hash is of."""
    ledger.append(a_visit("A"))
    leaf = base64.b64decode(page_of(ledger)["events"][0]["proof"]["leaf"])
    assert hash_leaf(leaf) == ledger.recorded()[0].leaf_hash
