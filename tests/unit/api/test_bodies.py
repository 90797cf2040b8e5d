"""Bodies are read to their end and no further, whatever the server's input does."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override
from werkzeug.wrappers import Request

from api.bodies import RequestBody
from api.importing import bounded_lines
from api.problems import SlowDownError
from api.turns import Limits, Visit
from ledger.domain.intake import EVENT_BYTES
from ledger.errors import MalformedError, TooLargeError


class Drip(io.RawIOBase):
    """An input that gives a few bytes at a time, as a network does, and counts what was asked of it."""

    def __init__(self, text: bytes, step: int = 3) -> None:
        self.text = io.BytesIO(text)
        self.step = step
        self.given = 0

    @override
    def read(self, size: int = -1, /) -> bytes:
        """At most ``step`` bytes."""
        part = self.text.read(min(size, self.step))
        self.given += len(part)
        return part


def body(source: Drip, headers: Mapping[str, str], limits: Limits | None = None) -> RequestBody:
    """The body of a request with this input."""
    environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "wsgi.input": source}
    environ |= {ENVIRONMENT[name]: value for name, value in headers.items()}
    return RequestBody(Request(environ), Visit(limits or Limits(2)))  # type: ignore[arg-type]  # the parts that are used are the same


ENVIRONMENT = {
    "Content-Length": "CONTENT_LENGTH",
    "Transfer-Encoding": "HTTP_TRANSFER_ENCODING",
    "Expect": "HTTP_EXPECT",
}
CHUNKED = {"Transfer-Encoding": "chunked"}


@pytest.mark.parametrize("headers", [CHUNKED, {"Content-Length": "10"}])
def test_a_body_is_read_whole(headers: dict[str, str]) -> None:
    """In however many pieces it comes."""
    assert body(Drip(b"0123456789"), headers).read_all(10, "large") == b"0123456789"


def test_a_body_that_breaks_off_is_malformed() -> None:
    """Fewer bytes than its Content-Length."""
    with pytest.raises(MalformedError):
        body(Drip(b"0123456789"), {"Content-Length": "11"}).read_all(100, "large")


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    """Not a byte."""
    source = Drip(b"0123456789")
    with pytest.raises(TooLargeError):
        body(source, {"Content-Length": "10"}).read_all(9, "large")
    assert source.given == 0


def test_a_body_that_turns_out_too_large_is_not_held() -> None:
    """Reading stops at the limit; what is left can be drained."""
    source = Drip(b"x" * 1000, step=100)
    refused = body(source, CHUNKED)
    with pytest.raises(TooLargeError):
        refused.read_all(150, "large")
    assert source.given <= 300

    refused.drain(known_client=True)
    assert source.given == 1000


def test_large_bodies_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are held in memory while they come, and lines; small ones never wait for them."""
    monkeypatch.setattr("api.turns.PATIENCE_SECONDS", 0.01)
    limits = Limits(4)
    first = body(Drip(b"x" * 2**21, 2**16), CHUNKED, limits)
    assert len(first.read_all(2**22, "large")) == 2**21
    body(Drip(b"{}\n"), CHUNKED, limits).lines()

    with pytest.raises(SlowDownError):
        body(Drip(b"x" * 2**21, 2**16), CHUNKED, limits).read_all(2**22, "large")
    with pytest.raises(SlowDownError):
        body(Drip(b"{}\n"), CHUNKED, limits).lines()
    assert body(Drip(b"{}"), CHUNKED, limits).read_all(100, "large") == b"{}"


def test_strangers_are_drained_little() -> None:
    """An answer is not worth reading a stranger's gigabyte."""
    source = Drip(b"x" * 3 * 2**20, step=2**16)

    body(source, CHUNKED).drain(known_client=False)

    assert source.given <= 2**20 + 2**16


def test_who_waits_to_be_asked_is_not_drained() -> None:
    """``Expect: 100-continue``: reading would make the client send."""
    source = Drip(b"x" * 10)

    body(source, {"Content-Length": "10", "Expect": "100-continue"}).drain(known_client=True)

    assert source.given == 0


def test_a_request_without_a_body_asks_the_input_for_nothing() -> None:
    """No Content-Length and not chunked: there is none."""
    source = Drip(b"left over")

    assert body(source, {}).absent
    assert body(source, {}).read_all(10, "large") == b""
    assert source.given == 0


@given(st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b" ")), max_size=20), st.integers(1, 50))
def test_lines_are_those_that_were_sent(lines: list[bytes], step: int) -> None:
    """Wherever the network cuts them."""
    text = b"".join(line + b"\n" for line in lines)

    assert list(bounded_lines(body(Drip(text, step), CHUNKED).lines())) == [line + b"\n" for line in lines]


def test_an_overlong_line_is_replaced_by_one_that_is_refused() -> None:
    """And the next line is whole."""
    text = b"a\n" + b"x" * (EVENT_BYTES + 2**16) + b"\nb\n"

    first, second, third = bounded_lines(body(Drip(text, 2**16), CHUNKED).lines())

    assert (first, third) == (b"a\n", b"b\n")
    assert len(second) > EVENT_BYTES
