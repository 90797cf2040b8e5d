"""The leaves of a ledger follow each other, or it is told where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest

from ledger.domain.leaf_trail import LeafTrail, TrailError
from tests.support.leaf_bytes import leaf


def followed(leaves: Sequence[bytes]) -> LeafTrail:
    """A trail behind all of these."""
    trail = LeafTrail()
    for raw in leaves:
        trail.follow(raw)
    return trail


GOOD = [leaf(0, keys=[b"a"]), leaf(1, keys=[b"a", b"b"]), leaf(2, shreds=[b"a", b"c"]), leaf(3, keys=[b"b"])]


def test_leaves_in_order_are_followed() -> None:
    """Their number, the time of the last one and the dead keys are kept."""
    trail = followed(GOOD)
    assert (trail.size, trail.recorded_at) == (4, 1003)
    assert trail.dead == {b"a" * 32, b"c" * 32}


def test_the_keys_that_a_leaf_names_are_given_once() -> None:
    """So that they can be kept elsewhere; naming one again is no use of it."""
    trail = followed(GOOD)
    assert trail.follow(leaf(4, shreds=[b"a", b"d"])) == [b"d" * 32]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (leaf(5), "says that it stands at 5"),
        (leaf(3), "says that it stands at 3"),
        (leaf(4, recorded_at=1002), "was recorded before"),
        (leaf(4, ledger_id=UUID(int=9)), "is of another ledger"),
        (leaf(4, keys=[b"b", b"a"]), "uses a key that was shredded"),
        (leaf(4)[:-1], "cannot be read"),
        (leaf(4) + b"x", "cannot be read"),
        (b"", "cannot be read"),
        (b"\x02" + leaf(4)[1:], "cannot be read"),
    ],
)
def test_a_leaf_that_does_not_fit_is_named_and_changes_nothing(wrong: bytes, why: str) -> None:
    """The position is the one at which it stands; the right leaf is followed all the same."""
    trail = followed(GOOD)
    with pytest.raises(TrailError, match=why) as caught:
        trail.follow(wrong)
    assert caught.value.position == 4
    assert trail == followed(GOOD)
    trail.follow(leaf(4, keys=[b"b"], recorded_at=1003))
