"""Durable subscriptions, as far as they are a matter of arithmetic: who gets which streams, and when to try again."""

from __future__ import annotations

from typing import Final

from ledger.domain.names import ledger_name_fault

DEFAULT_PARTITIONS: Final = 8
PARTITIONS: Final = 64
"""Of one subscription, at most."""

DEFAULT_TRIES: Final = 5
MOST_TRIES: Final = 100
FIRST_RETRY: Final = 1_000_000
"""Microseconds before what has failed once is tried again."""

LONGEST_RETRY: Final = 300_000_000
"""Microseconds between two tries, at most."""

_BYTES: Final = 256


def subscription_name_fault(value: object) -> str | None:
    """Say what is wrong with the name of a subscription, or None. It stands in URLs, as that of a ledger does."""
    return ledger_name_fault(value)


def partition_of(stream_ref: bytes, partitions: int) -> int:
    """The partition that a stream belongs to. Refs are random, so each gets about as many streams."""
    return stream_ref[-1] * partitions // _BYTES


def share_of(partition: int, partitions: int) -> tuple[int, int]:
    """The first and the last value of the last byte of the refs that belong to a partition."""
    return -(-partition * _BYTES // partitions), -(-(partition + 1) * _BYTES // partitions) - 1


def retry_delay(tries: int, chance: float) -> int:
    """Microseconds to wait after so many failures: twice as long each time, up to a limit.

    ``chance``, from 0 to 1, takes off up to a half, so that what failed together is not tried together again.
    """
    longest = min(FIRST_RETRY << min(tries - 1, 32), LONGEST_RETRY)
    return int(longest * (1 - chance / 2))
