"""Times: RFC 3339 text outside, integer microseconds since 1970-01-01 UTC inside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MICROSECONDS_OF_A_MINUTE: Final = 60_000_000
_FIRST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_RFC3339: Final = re.compile(
    # Hours and offsets are bounded here: Python takes the offset +00:60, and from 3.14 on the hour 24.
    r"\d{4}-\d{2}-\d{2}[Tt](?:[01]\d|2[0-3]):\d{2}:\d{2}(?:\.\d{1,6})?"
    r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
FORM: Final = "must be an RFC 3339 time with an offset and at most microseconds, like 2026-03-15T15:00:00Z"


def parse_time(text: object) -> int | None:
    """Read an RFC 3339 time with an offset (§5.6; no leap seconds); None for anything else."""
    if not isinstance(text, str) or _RFC3339.fullmatch(text) is None:
        return None
    try:
        microseconds = (datetime.fromisoformat(text.upper()) - _EPOCH) // _MICROSECOND
    except ValueError:
        return None
    # What leaves the years 1 to 9999 in UTC could never be shown again.
    return microseconds if _FIRST <= microseconds <= _LAST else None


def format_time(microseconds: int) -> str:
    """Show a time in UTC with microseconds; one outside of the years 1 to 9999, which only a row altered by hand can
    hold, as the nearest inside: such a row must not keep others from being shown."""
    minute, rest = divmod(min(max(microseconds, _FIRST), _LAST), _MICROSECONDS_OF_A_MINUTE)
    return f"{_format_minute(minute)}{rest // 1_000_000:02}.{rest % 1_000_000:06}Z"


@lru_cache(maxsize=1024)
def _format_minute(minute: int) -> str:
    """Up to the colon before the seconds. Events that are read together were mostly recorded together."""
    moment = _EPOCH + timedelta(minutes=minute)
    return moment.replace(tzinfo=None).isoformat(timespec="minutes") + ":"
