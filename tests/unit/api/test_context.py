"""Trace Context, as W3C has it."""

from __future__ import annotations

from uuid import UUID

import pytest

from api.context import parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "header", [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-01-later"]
)
def test_the_trace_id_is_taken(header: str) -> None:
    """Of later versions too."""
    assert parse_traceparent(header) == UUID(hex=TRACE)


@pytest.mark.parametrize(
    "header",
    [
        "",
        TRACE,
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}x-{PARENT}-01",
    ],
)
def test_what_is_not_valid_counts_for_nothing(header: str) -> None:
    """A broken header of a middleman is no reason to refuse an append."""
    assert parse_traceparent(header) is None
