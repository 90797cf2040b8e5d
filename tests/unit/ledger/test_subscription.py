"""Partitions share out all streams, and retries wait longer and longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.subscription import FIRST_RETRY, LONGEST_RETRY, PARTITIONS, partition_of, retry_delay, share_of

counts = st.integers(1, PARTITIONS)


@given(counts, st.binary(min_size=16, max_size=16))
def test_every_stream_belongs_to_the_one_partition_whose_share_it_is_in(partitions: int, ref: bytes) -> None:
    """The database and the code agree."""
    shares = [share_of(number, partitions) for number in range(partitions)]

    assert [first <= ref[-1] <= last for first, last in shares] == [
        number == partition_of(ref, partitions) for number in range(partitions)
    ]


@given(counts)
def test_shares_are_about_equal(partitions: int) -> None:
    """None has more than one byte more than another, and together they have all."""
    sizes = [last - first + 1 for first, last in (share_of(number, partitions) for number in range(partitions))]

    assert sum(sizes) == 256
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_retries_wait_twice_as_long_each_time_up_to_a_limit(tries: int, chance: float) -> None:
    """Less what chance takes off."""
    longest = min(FIRST_RETRY * 2 ** min(tries - 1, 40), LONGEST_RETRY)

    assert longest / 2 - 1 <= retry_delay(tries, chance) <= longest
    assert retry_delay(tries + 1, chance) >= retry_delay(tries, chance)
