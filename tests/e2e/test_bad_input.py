"""Every field wrong in every way that a client would get it wrong: the status and problem of the contract, the place of
the fault, no echo of the value, and nothing recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Tenant, make_tenant
from tests.support.server import NDJSON, Answer, ServedLedger

JSON = "application/json"
GOOD: dict[str, Any] = {
    "stream": "patient-A",
    "type": "Noted",
    "subject": "patient:A",
    "data": {"n": 1},
    "actor": {"subject": "group:L", "data": {"ip": "x"}},
    "parts": [{"subject": "patient:B", "data": {"n": 1}}],
}
VERSION_5 = "2ed6657d-e927-568b-95e1-2665a8aea6a2"
VERSION_3 = "6fa459ea-ee8a-3ca4-894e-db77e160355e"
REF = "0" * 32
CANARY = "Canary-Input-4417"

NOT_STRINGS: list[object] = [1, 1.5, True, [CANARY], {CANARY: CANARY}]
BAD_NAMES: list[object] = [
    *NOT_STRINGS,
    "",
    " ",
    f" {CANARY}",
    f"{CANARY} ",
    f"{CANARY}\x00",
    f"{CANARY}\n",
    f"{CANARY}\x7f",
    f"{CANARY}\u2028",
    f"{CANARY}\ud800",
    "e\u0301" + CANARY,
    "x" * 257,
    "ü" * 129,
]
BAD_STREAMS = [
    *BAD_NAMES,
    CANARY.replace("-", "_"),
    "-A",
    "patient-",
    f"pätient-{CANARY}",
    "ledger-1",
    "access-1",
    "a b-c",
]
BAD_WORDS: list[object] = [*NOT_STRINGS, "", "a b", "a-b", "ä", "a\n", "x" * 129]
BAD_TYPES = [*BAD_WORDS, "SubjectErased", "ErasureFinal", "SubjectRestricted", "StreamSuperseded"]
BAD_PURPOSES: list[object] = [*NOT_STRINGS, None, "a b", "ä", "x" * 65, "actor"]
NOT_UUIDS: list[object] = [
    *NOT_STRINGS,
    "",
    CANARY,
    "0193a7f08c1d7e3f9f3b2c1d0e4f5a6b",
    "{0193a7f0-8c1d-7e3f-9f3b-2c1d0e4f5a6b}",
    "urn:uuid:0193a7f0-8c1d-7e3f-9f3b-2c1d0e4f5a6b",
    "0193a7f0-8c1d-7e3f-9f3b-2c1d0e4f5a6b ",
]
BAD_IDS = [*NOT_UUIDS, "00000000-0000-0000-0000-000000000000", VERSION_5, VERSION_3]
BAD_TIMES: list[object] = [
    *NOT_STRINGS,
    "",
    CANARY,
    "2026-01-01",
    "2026-01-01T10:00:00",
    "2026-01-01 10:00:00Z",
    "2026-02-30T10:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T10:00:60Z",
    "2026-01-01T10:00:00.1234567Z",
    "2026-01-01T10:00:00+25:00",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "10000-01-01T00:00:00Z",
    "٢٠٢٦-01-01T10:00:00Z",
]
BAD_NUMBERS: list[object] = ["1", 1.0, 1.5, True, None, [], {}, -1, 2**63, 2**200]
BAD_REFS: list[object] = [*NOT_STRINGS, "", CANARY, REF, f"sub_{REF}0", f"str_{'g' * 32}", f"SUB_{REF}"]


def nested(levels: int) -> object:
    """Objects in objects."""
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    return value


BAD_DATA: list[object] = [
    1,
    True,
    CANARY,
    [CANARY],
    {"n": 2**64},
    {"n": -(2**63) - 1},
    {"n": [1, [2, {"m": 10**400}]]},
    {CANARY: "\ud800"},
    {"\udfff": CANARY},
    nested(65),
]

FIELDS: dict[str, list[object]] = {
    "/id": BAD_IDS,
    "/stream": [*BAD_STREAMS, None],
    "/expected_version": ["1", "none", "", 1.0, 1.5, True, None, [], {}, -1, 2**63],
    "/type": [*BAD_TYPES, None],
    "/schema_version": [*BAD_NUMBERS, 0, 2**31],
    "/subject": BAD_NAMES,
    "/purpose": BAD_PURPOSES,
    "/data": BAD_DATA,
    "/nonpersonal": BAD_DATA,
    "/actor": [1, 1.5, True, [CANARY], "", f" {CANARY}", "e\u0301"],
    "/actor/subject": [*BAD_NAMES, None],
    "/actor/data": BAD_DATA,
    "/parts": [1, True, CANARY, {"subject": CANARY}, [{"subject": "a", "data": {}}] * 61],
    "/parts/0": [1, True, None, CANARY, [CANARY]],
    "/parts/0/subject": [*BAD_NAMES, None],
    "/parts/0/purpose": BAD_PURPOSES,
    "/parts/0/data": BAD_DATA,
    "/occurred_at": BAD_TIMES,
    "/correlation_id": BAD_IDS,
    "/causation_id": BAD_IDS,
    "/if_erased": [*NOT_STRINGS, None, "", "keep"],
}
WHOLE_EVENTS: list[tuple[dict[str, Any], str]] = [
    ({"type": "X", "nonpersonal": {}}, "/stream"),
    ({"stream": "ward-1", "nonpersonal": {}}, "/type"),
    ({"stream": "ward-1", "type": "X"}, ""),
    ({"stream": "ward-1", "type": "X", "data": {}}, "/subject"),
    ({"stream": "ward-1", "type": "X", "nonpersonal": {}, "purpose": "p"}, "/purpose"),
    ({"stream": "ward-1", "type": "X", "subject": "a"}, ""),
    ({**GOOD, "stream_ref": f"str_{REF}"}, "/stream_ref"),
    ({**GOOD, "subject_ref": f"sub_{REF}"}, "/subject_ref"),
    ({**GOOD, "actor_ref": f"sub_{REF}"}, "/actor_ref"),
    ({**GOOD, "actor": {"data": {}}}, "/actor/subject"),
    ({**GOOD, "actor": {"subject": "a", "subject_ref": f"sub_{REF}"}}, "/actor/subject_ref"),
    ({**GOOD, "parts": [{"data": {}}]}, "/parts/0/subject"),
    ({**GOOD, CANARY: 1}, ""),
    ({**GOOD, "actor": {"subject": "a", CANARY: 1}}, "/actor"),
    ({**GOOD, "parts": [{"subject": "a", CANARY: 1}]}, "/parts/0"),
]
NOT_JSON: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("white space", b"  \n"),
    ("cut", b'{"stream":"ward-1"'),
    ("two", b"{} {}"),
    ("single quotes", b"{'stream': 'ward-1'}"),
    ("a comma too many", b'{"stream":"ward-1",}'),
    ("a comment", b'{"stream":"ward-1"} // note'),
    ("NaN", b'{"stream":"ward-1","type":"X","nonpersonal":{"n":NaN}}'),
    ("Infinity", b'{"stream":"ward-1","type":"X","nonpersonal":{"n":-Infinity}}'),
    ("a key twice", b'{"stream":"ward-1","type":"X","type":"X","nonpersonal":{}}'),
    ("a key twice in data", b'{"stream":"ward-1","type":"X","nonpersonal":{"a":{"b":1,"b":1}}}'),
    ("a key twice, once escaped", b'{"stream":"ward-1","type":"X","nonpersonal":{"a":1,"\\u0061":1}}'),
    ("ISO 8859-1", '{"stream":"ward-1","type":"X","nonpersonal":{"ü":1}}'.encode("latin-1")),
    ("UTF-16", '{"stream":"ward-1"}'.encode("utf-16")),
    ("a byte order mark", b'\xef\xbb\xbf{"stream":"ward-1","type":"X","nonpersonal":{}}'),
    ("overlong UTF-8", b'{"stream":"ward-1","type":"X","nonpersonal":{"a":"\xc0\xaf"}}'),
    ("a surrogate in UTF-8", b'{"stream":"ward-1","type":"X","nonpersonal":{"a":"\xed\xa0\x80"}}'),
    ("a raw control character", b'{"stream":"ward-1","type":"X","nonpersonal":{"a":"\x00"}}'),
    ("too deep to read", b'{"nonpersonal":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ("a number too long to read", b'{"nonpersonal":{"n":' + b"9" * 10_000 + b"}}"),
]


@pytest.fixture(scope="module")
def tenant(sqlite_server: ServedLedger) -> Tenant:
    """One ledger for all of the table: nothing is ever recorded in it."""
    return make_tenant(sqlite_server)


def send(tenant: Tenant, body: bytes, media_type: str | None = JSON, **headers: str) -> Answer:
    """POST these bytes as events."""
    typed = {"Content-Type": media_type} if media_type is not None else {}
    return tenant.client.send("POST", f"{tenant.path}/events", body, {**typed, **headers})


def put(event: dict[str, Any], pointer: str, value: object) -> dict[str, Any]:
    """A copy of the event with this value at this place."""
    copy: dict[str, Any] = json.loads(json.dumps(event))
    place: Any = copy
    *way, last = pointer[1:].split("/")
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[int(last) if isinstance(place, list) else last] = value
    return copy


def check_refused(tenant: Tenant, answer: Answer, status: int, code: str, pointers: set[str] | None = None) -> None:
    """The problem, its places, no echo, and an empty ledger."""
    assert (answer.status, answer.code) == (status, code), answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    if pointers is not None:
        assert {error["pointer"] for error in answer.json()["errors"]} == pointers
        assert all(error["message"] for error in answer.json()["errors"])
    assert CANARY.encode() not in answer.body
    assert tenant.size == 0


@pytest.mark.parametrize("pointer", FIELDS)
def test_a_wrong_field_is_named_and_nothing_is_recorded(tenant: Tenant, pointer: str) -> None:
    """Alone, in a batch, and in a line."""
    for value in FIELDS[pointer]:
        event = put(GOOD, pointer, value)
        alone = send(tenant, json.dumps(event).encode())
        batch = send(tenant, json.dumps({"events": [{**GOOD}, event]}).encode())
        line = send(tenant, json.dumps(event).encode(), NDJSON)

        # A subject that is wrong may make the data look as if they had none.
        places = {error["pointer"] for error in alone.json()["errors"]}
        assert any(place == pointer or place.startswith(f"{pointer}/") for place in places), (value, places)
        check_refused(tenant, alone, 422, "invalid")
        check_refused(tenant, batch, 422, "invalid", {f"/events/1{place}" for place in places})
        problem, end = line.lines()
        assert problem["problem"]["errors"] == alone.json()["errors"]
        assert end == {"end": True, "recorded": 0, "duplicates": 0, "refused": 1}
        assert CANARY.encode() not in line.body


@pytest.mark.parametrize("field", ["stream_ref", "subject_ref", "actor_ref"])
def test_a_wrong_ref_is_named(tenant: Tenant, field: str) -> None:
    """The form is looked at first; a ref that is well-formed and unknown is 404."""
    kind = "str" if field == "stream_ref" else "sub"
    event = {name: value for name, value in GOOD.items() if name != field.removesuffix("_ref")}
    for value in [*BAD_REFS, f"{'sub' if kind == 'str' else 'str'}_{REF}"]:
        check_refused(tenant, send(tenant, json.dumps({**event, field: value}).encode()), 422, "invalid", {f"/{field}"})
    unknown = send(tenant, json.dumps({**event, field: f"{kind}_{REF}"}).encode())
    check_refused(tenant, unknown, 404, "not-found")


@pytest.mark.parametrize(("event", "pointer"), WHOLE_EVENTS)
def test_an_event_that_cannot_be_meant_is_refused(tenant: Tenant, event: dict[str, Any], pointer: str) -> None:
    """Fields that are missing, exclude each other, or are not known."""
    check_refused(tenant, send(tenant, json.dumps(event).encode()), 422, "invalid", {pointer})


@pytest.mark.parametrize(("what", "body"), NOT_JSON)
def test_what_is_not_json_is_malformed(tenant: Tenant, what: str, body: bytes) -> None:
    """400 for a body; of lines, only that line."""
    check_refused(tenant, send(tenant, body), 400, "malformed")
    if body.strip():
        *_, end = send(tenant, body.replace(b"\n", b" "), NDJSON).lines()
        assert (end["recorded"], end["refused"]) == (0, 1), what
    check_refused(
        tenant, tenant.client.send("POST", f"{tenant.path}/state", body, {"Content-Type": JSON}), 400, "malformed"
    )


@pytest.mark.parametrize("body", [b"null", b"1", b'"text"', b"true", b"[]", b'[{"stream":"ward-1"}]'])
def test_json_that_is_no_object_is_refused(tenant: Tenant, body: bytes) -> None:
    """Here and at the other endpoints."""
    check_refused(tenant, send(tenant, body), 422, "invalid", {""})
    for path in ("query", "state", "erasures", "subjects/lookup"):
        answer = tenant.client.send("POST", f"{tenant.path}/{path}", body, {"Content-Type": JSON})
        check_refused(tenant, answer, 422, "invalid")


def test_a_batch_has_a_size_and_no_other_fields(tenant: Tenant) -> None:
    """Empty, not an array, 10,001 events, an id twice."""
    event = {"stream": "ward-1", "type": "X", "nonpersonal": {}}
    own_id = "0193a7f0-8c1d-7e3f-9f3b-2c1d0e4f5a6b"

    check_refused(tenant, send(tenant, b'{"events":[]}'), 422, "invalid", {"/events"})
    check_refused(tenant, send(tenant, b'{"events":{}}'), 422, "invalid", {"/events"})
    check_refused(tenant, send(tenant, b'{"events":null}'), 422, "invalid", {"/events"})
    check_refused(
        tenant, send(tenant, json.dumps({"events": [event] * 10_001}).encode()), 413, "too-large", {"/events"}
    )
    check_refused(
        tenant, send(tenant, json.dumps({"events": [event], "type": "X"}).encode()), 422, "invalid", {"/type"}
    )
    check_refused(tenant, send(tenant, json.dumps({"events": [event], CANARY: 1}).encode()), 422, "invalid", {""})
    twice = {"events": [{**event, "id": own_id}, event, {**event, "id": own_id}]}
    check_refused(tenant, send(tenant, json.dumps(twice).encode()), 422, "invalid", {"/events/2/id"})


def test_what_is_too_large_is_refused(tenant: Tenant) -> None:
    """An event above 1 MiB, alone, in a batch and in a line; a batch above 32 MiB; any other body above 1 MiB."""
    large = {"stream": "ward-1", "type": "X", "nonpersonal": {"text": "x" * 2**20}}
    small = {**large, "nonpersonal": {}}

    check_refused(tenant, send(tenant, json.dumps(large).encode()), 413, "too-large", {""})
    batch = json.dumps({"events": [small, large]}).encode()
    check_refused(tenant, send(tenant, batch), 413, "too-large", {"/events/1"})
    check_refused(tenant, send(tenant, b" " * (32 * 2**20 + 1)), 413, "too-large")
    chunks = [b" " * 2**20] * 33
    chunked = tenant.client.send("POST", f"{tenant.path}/events", iter(chunks), {"Content-Type": JSON})
    check_refused(tenant, chunked, 413, "too-large")
    for path in ("query", "state", "streams/lookup", "subjects/lookup", "erasures"):
        other = tenant.client.send("POST", f"{tenant.path}/{path}", b" " * (2**20 + 1), {"Content-Type": JSON})
        check_refused(tenant, other, 413, "too-large")
    line, end = send(tenant, json.dumps(large).encode() + b"\n", NDJSON).lines()
    assert (line["problem"]["status"], end["refused"]) == (413, 1)


def test_an_overlong_line_loses_no_other(sqlite_server: ServedLedger) -> None:
    """It is skipped to its end without being held, and the lines around it are recorded."""
    tenant = make_tenant(sqlite_server)
    good = b'{"stream":"ward-1","type":"X","nonpersonal":{}}\n'

    lines = send(tenant, good + b"{" * (5 * 2**20) + b"\n" + good, NDJSON).lines()

    assert [line.get("problem", {}).get("status") for line in lines[:3]] == [None, 413, None]
    assert lines[3] == {"end": True, "recorded": 2, "duplicates": 0, "refused": 1}
    assert tenant.size == 2


@pytest.mark.parametrize(
    ("media_type", "headers"),
    [
        (None, {}),
        ("text/plain", {}),
        ("application/x-www-form-urlencoded", {}),
        ("multipart/form-data; boundary=x", {}),
        ("application/json; charset=latin-1", {}),
        ("application/jsonlines", {}),
        ("nonsense", {}),
        (JSON, {"Content-Encoding": "gzip"}),
    ],
)
def test_other_media_types_are_not_read(tenant: Tenant, media_type: str | None, headers: dict[str, str]) -> None:
    """415, at every endpoint that takes a body."""
    body = json.dumps({"stream": "ward-1", "type": "X", "nonpersonal": {}}).encode()
    typed = {"Content-Type": media_type} if media_type is not None else {}

    check_refused(tenant, send(tenant, body, media_type, **headers), 415, "unsupported-media-type")
    for path in ("query", "state", "erasures"):
        answer = tenant.client.send("POST", f"{tenant.path}/{path}", body, {**typed, **headers})
        check_refused(tenant, answer, 415, "unsupported-media-type")


@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "x" * 256, "a\tb"])
def test_an_idempotency_key_is_visible_ascii(tenant: Tenant, key: str) -> None:
    """Anything else is 422."""
    body = json.dumps({"stream": "ward-1", "type": "X", "nonpersonal": {}}).encode()

    check_refused(tenant, send(tenant, body, **{"Idempotency-Key": key}), 422, "invalid")


QUERY: dict[str, list[object]] = {
    "/stream": BAD_NAMES,
    "/stream_ref": BAD_REFS,
    "/after_version": BAD_NUMBERS,
    "/category": BAD_WORDS,
    "/type": [1, True, CANARY, {"a": 1}, ["x"] * 101],
    "/type/0": [[value] for value in BAD_WORDS],
    "/subject": BAD_NAMES,
    "/subject_ref": BAD_REFS,
    "/actor": [*BAD_NAMES, {"subject": CANARY}],
    "/actor_ref": BAD_REFS,
    "/involving": BAD_NAMES,
    "/involving_ref": BAD_REFS,
    "/correlation_id": NOT_UUIDS,
    "/recorded_by": NOT_UUIDS,
    "/recorded_from": BAD_TIMES,
    "/recorded_to": BAD_TIMES,
    "/occurred_from": BAD_TIMES,
    "/occurred_to": BAD_TIMES,
    "/as_of": [*BAD_TIMES, {}, {"position": 1, CANARY: 1}, {"time": "2026-01-01T00:00:00Z"}, "2999-01-01T00:00:00Z"],
    "/as_of/position": [{"position": value} for value in BAD_NUMBERS],
    "/order_by": [*NOT_STRINGS, None, "", "position"],
    "/order": [*NOT_STRINGS, None, "", "up"],
    "/limit": [*BAD_NUMBERS, 0, 1001],
    "/cursor": [1, True, [], {}, "", CANARY, "ü", "e30", "W10", "WzEse30sMSxudWxsXQ"],
    "/proof": [0, 1, 1.0, "false", "true", "Opened", "", None, [], {}],
}


@pytest.mark.parametrize("pointer", QUERY)
def test_a_wrong_question_is_named(tenant: Tenant, pointer: str) -> None:
    """422 with the place of the fault."""
    field = pointer.split("/")[1]
    for value in QUERY[pointer]:
        answer = tenant.client.post(f"{tenant.path}/query", {field: value})
        check_refused(tenant, answer, 422, "invalid", {pointer})


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("query", {CANARY: 1}, {""}),
        ("query", {"stream": "a-b", "stream_ref": f"str_{REF}"}, {"/stream_ref"}),
        ("state", {}, {"/stream"}),
        ("state", {"stream": "a-b", "stream_ref": f"str_{REF}"}, {"/stream_ref"}),
        ("state", {"stream": "a-b", "as_of": CANARY, "occurred_as_of": CANARY}, {"/as_of", "/occurred_as_of"}),
        ("streams/lookup", {}, {"/stream"}),
        ("streams/lookup", {"stream": f" {CANARY}"}, {"/stream"}),
        ("subjects/lookup", {"subject": None}, {"/subject"}),
        ("subjects/lookup", {"subject": "a", "stream": CANARY}, {""}),
        ("erasures", {}, {"/subject"}),
        ("erasures", {"subject": "a", "purposes": []}, {"/purposes"}),
        ("erasures", {"subject": "a", "purposes": "billing"}, {"/purposes"}),
        ("erasures", {"subject": "a", "purposes": ["ok", "not ok"]}, {"/purposes/1"}),
        ("erasures", {"subject": "a", "ground": f"because {CANARY}!"}, {"/ground"}),
        ("erasures", {"subject": "a", "reference": f"{CANARY}@"}, {"/reference"}),
        ("erasures", {"subject": "a", "reference": "x" * 129}, {"/reference"}),
        ("erasures", {"subject": "a", "preview_hash": CANARY}, {"/preview_hash"}),
        ("erasures", {"subject": "a", "block_unknown": 1}, {"/block_unknown"}),
        ("erasures", {"subject": "a", "block_unknown": "true"}, {"/block_unknown"}),
    ],
)
def test_other_bodies_are_checked_too(tenant: Tenant, path: str, body: object, pointers: set[str]) -> None:
    """422 with the places of the faults."""
    check_refused(tenant, tenant.client.post(f"{tenant.path}/{path}", body), 422, "invalid", pointers)


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("/v1/ledgers", {}, {"/name"}),
        ("/v1/ledgers", {"name": None}, {"/name"}),
        ("/v1/ledgers", {"name": "Hospital"}, {"/name"}),
        ("/v1/ledgers", {"name": "-a"}, {"/name"}),
        ("/v1/ledgers", {"name": "x" * 64}, {"/name"}),
        ("/v1/ledgers", {"name": "ok", "policy": {}}, {""}),
        ("/v1/api-keys", {}, {"/name", "/principal", "/roles"}),
        ("/v1/api-keys", {"name": "a", "principal": "b", "roles": ["root"]}, {"/roles/0"}),
        ("/v1/api-keys", {"name": "a", "principal": "b", "roles": "admin"}, {"/roles"}),
        ("/v1/api-keys", {"name": "a", "principal": "b", "roles": []}, {"/roles"}),
        ("/v1/api-keys", {"name": "a", "principal": "b", "roles": ["admin", "admin"]}, {"/roles"}),
        ("/v1/api-keys", {"name": "a", "principal": "b", "roles": ["admin"], "ledger": "nobody"}, {"/ledger"}),
        ("/v1/api-keys", {"name": "a", "principal": "b", "roles": ["admin"], "ledger": 1}, {"/ledger"}),
        (
            "/v1/api-keys",
            {"name": "a", "principal": "b", "roles": ["admin"], "expires_at": "2020-01-01T00:00:00Z"},
            {"/expires_at"},
        ),
        ("/v1/api-keys", {"name": "a", "principal": "b", "roles": ["admin"], "expires_at": 1}, {"/expires_at"}),
        ("/v1/api-keys", {"name": " a", "principal": "", "roles": ["admin"]}, {"/name", "/principal"}),
    ],
)
def test_administration_is_checked_too(tenant: Tenant, path: str, body: object, pointers: set[str]) -> None:
    """422 with the places of the faults."""
    check_refused(tenant, tenant.client.post(path, body), 422, "invalid", pointers)


@pytest.mark.parametrize(
    ("parameters", "pointers"),
    [
        ("events?after=x", {"/after"}),
        ("events?after=-2", {"/after"}),
        ("events?after=1.0", {"/after"}),
        ("events?after=", {"/after"}),
        ("events?after=%D9%A1", {"/after"}),
        ("events?after=99999999999999999999", {"/after"}),
        ("events?limit=0", {"/limit"}),
        ("events?limit=1001", {"/limit"}),
        ("events?limit=1&limit=2", {"/limit"}),
        ("events?wait=61", {"/wait"}),
        ("events?wait=true", {"/wait"}),
        ("events?category=a-b", {"/category"}),
        ("events?type=A,", {"/type"}),
        ("events?type=a%20b", {"/type"}),
        (f"events?subject_ref={CANARY}", {"/subject_ref"}),
        (f"events?stream_ref=sub_{REF}", {"/stream_ref"}),
        ("events?as_of=yesterday", {"/as_of"}),
        ("events?as_of=-1", {"/as_of"}),
        ("events?as_of=99", {"/as_of"}),
        ("events?cursor=x", {"/cursor"}),
        (f"events?subject={CANARY}", {""}),
        ("erasures?state=gone", {"/state"}),
        ("erasures?cursor=x", {"/cursor"}),
        ("erasures?reference=%40", {"/reference"}),
        ("erasures?limit=x", {"/limit"}),
    ],
)
def test_query_parameters_are_checked_too(tenant: Tenant, parameters: str, pointers: set[str]) -> None:
    """422 with the parameter's name."""
    check_refused(tenant, tenant.client.get(f"{tenant.path}/{parameters}"), 422, "invalid", pointers)


def test_names_in_both_forms_of_unicode_are_not_two_people(sqlite_server: ServedLedger) -> None:
    """NFC is taken; its NFD twin is refused, rather than becoming somebody else."""
    tenant = make_tenant(sqlite_server)
    event = {"stream": "patient-Zoë", "type": "X", "subject": "patient:Zoë", "data": {}}

    assert tenant.client.post(f"{tenant.path}/events", event).status == 201
    twin = tenant.client.post(f"{tenant.path}/events", {**event, "subject": "patient:Zoe\u0308"})
    found = tenant.client.post(f"{tenant.path}/query", {"subject": "patient:Zoë"}).json()["events"]

    assert twin.status == 422
    assert [event["subject"] for event in found] == ["patient:Zoë"]
