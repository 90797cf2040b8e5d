"""The text of a stream of server-sent events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from uuid import UUID

from api.sse import HEARTBEAT_SECONDS, event_stream
from ledger.domain.events import Envelope, OpenedEvent, RecordedEvent
from ledger.errors import StoreUnavailableError
from ledger.services.following.follow import FollowedPage

ID = UUID("0193a7f0-8c1d-7e3f-9f3b-2c1d0e4f5a6b")
START = b"retry: 1000\n\n"


def event(position: int) -> OpenedEvent:
    """An event with every line break that JSON or a stream could stumble over."""
    recorded = RecordedEvent(
        Envelope(ID, ID, bytes(16), "ward", "Noted", 1, None, None, None), (), ID, position, 1, 0, b""
    )
    return OpenedEvent(recorded, "ward-1", None, None, (), {"text": "a\nb\rc\r\nd\u2028e\u0085f"}, ())


def clock(step: float) -> Callable[[], float]:
    """Each reading is ``step`` later than the one before."""
    times = iter(range(1000))
    return lambda: next(times) * step


def test_an_event_is_one_message_whose_id_is_its_position() -> None:
    """With its JSON in one line of data."""
    beginning, *messages = event_stream(iter([FollowedPage([event(3), event(8)], 9)]))

    assert beginning == START
    assert [message.splitlines()[0] for message in messages] == [b"id: 3", b"id: 8"]
    for message in messages:
        name, data, empty = message.split(b"\n", 1)[0], message.split(b"\n")[1], message.split(b"\n")[2:]
        assert (name[:3], data[:6], empty) == (b"id:", b"data: ", [b"", b""])
        assert json.loads(data[6:])["nonpersonal"] == {"text": "a\nb\rc\r\nd\u2028e\u0085f"}
        assert b"\r" not in message


def test_a_heartbeat_says_how_far_nothing_matched() -> None:
    """So that who comes back does not go through that again; and nothing when nothing is new."""
    pages = [FollowedPage([event(3)], 3), FollowedPage([], 7), FollowedPage([], 7)]

    sent = list(event_stream(iter(pages), clock(HEARTBEAT_SECONDS)))

    assert sent[2:] == [b": still here\nid: 7\n\n", b": still here\n\n"]


def test_a_heartbeat_never_goes_back_behind_a_message() -> None:
    """A page can end where its last event is."""
    pages = [FollowedPage([event(3)], 3), FollowedPage([], 3)]

    assert list(event_stream(iter(pages), clock(HEARTBEAT_SECONDS)))[2:] == [b": still here\n\n"]


def test_silence_that_is_short_sends_nothing() -> None:
    """But lets the server look whether anybody is there."""
    pages = [FollowedPage([], 7)] * 3

    assert list(event_stream(iter(pages), clock(HEARTBEAT_SECONDS / 10))) == [START, b"", b"", b""]


def test_what_breaks_a_stream_is_told() -> None:
    """As a message of a type of its own, with nothing of what went wrong inside."""

    def pages() -> Iterator[FollowedPage]:
        yield FollowedPage([event(0)], 0)
        raise StoreUnavailableError("secret")

    *_, last = event_stream(pages())

    assert last.startswith(b"event: problem\ndata: ")
    assert json.loads(last.split(b"data: ")[1])["type"] == "urn:audit-ledger:problem:store-unavailable"
    assert b"secret" not in last
