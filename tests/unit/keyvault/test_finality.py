"""When an erasure is final, rule by rule: pure decisions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault.epoch_store import EpochRow
from keyvault.finality import DAY, Custody, decide, shares_place
from keyvault.providers.file import FileProvider

NOW = 1_000 * DAY


@dataclass(frozen=True)
class Erased:
    """What of an erasure decides."""

    done: bool = True
    erased_at: int | None = 10
    epoch: int | None = 2


def row(epoch: int, **changes: Any) -> EpochRow:
    """An epoch that is destroyed and gone, unless said otherwise."""
    destroyed = EpochRow(epoch, "file", "destroyed", 1, 2, 3, 0, 4, 100 + epoch, 200 + epoch)
    return replace(destroyed, **changes)


ROWS = (row(1), row(2), row(3, state="current", destroyed_at=None, gone_at=None))


def test_final_when_every_epoch_up_to_its_own_is_gone() -> None:
    """Since the last of them went; later epochs do not matter, living as they are."""
    found = decide(Erased(), ROWS, {3}, Custody(), NOW)
    assert (found.since, found.pending) == (202, None)
    assert [(one.epoch, one.destroyed_at, one.gone_at) for one in found.epochs] == [(1, 101, 201), (2, 102, 202)]


def test_never_before_it_was_carried_out() -> None:
    """An erasure can be younger than the end of the epochs, if it is of a vault that has no newer one."""
    assert decide(Erased(erased_at=900), ROWS, (), Custody(), NOW).since == 900


@pytest.mark.parametrize(
    ("changes", "pending"),
    [
        ({"done": False}, "open"),
        ({"erased_at": None}, "open"),
        ({"epoch": None}, "open"),
        ({"epoch": 3}, "epochs-alive"),
        ({"epoch": 4}, "epochs-alive"),
    ],
)
def test_the_erasure_itself_must_be_done_and_its_epochs_too(changes: dict[str, Any], pending: str) -> None:
    """An epoch of which there is no row proves nothing."""
    found = decide(replace(Erased(), **changes), ROWS, (), Custody(), NOW)
    assert (found.since, found.pending) == (None, pending)


@pytest.mark.parametrize("state", ["preparing", "current", "retiring"])
def test_one_epoch_that_is_not_destroyed_is_enough(state: Any) -> None:
    """Even the oldest, even one that was only begun, and also while its destruction is merely ordered."""
    rows = (row(1, state=state, gone_at=None), ROWS[1], ROWS[2])
    assert decide(Erased(), rows, (), Custody(), NOW).pending == "epochs-alive"


def test_the_keeper_s_word_counts_more_than_the_row() -> None:
    """A KEK that came back opens copies, whatever the vault says of it."""
    assert decide(Erased(), ROWS, {1, 3}, Custody(), NOW).pending == "epochs-alive"


def test_a_missing_row_is_no_proof() -> None:
    """Somebody has deleted it, or the vault was restored."""
    assert decide(Erased(), ROWS[1:], (), Custody(), NOW).pending == "epochs-alive"


def test_a_keeper_that_waits_is_waited_for() -> None:
    """To the microsecond."""
    rows = (row(1, gone_at=NOW + 1), row(2))
    assert decide(Erased(), rows, (), Custody(), NOW).pending == "keeper-waits"
    assert decide(Erased(), rows, (), Custody(), NOW + 1).since == NOW + 1


def test_declared_copies_are_waited_for() -> None:
    """So long after the last KEK went."""
    custody = Custody(copies_kept=30 * DAY)
    gone = NOW - 30 * DAY
    assert decide(Erased(), (row(1, gone_at=gone + 1), row(2)), (), custody, NOW).pending == "copies-kept"
    assert decide(Erased(), (row(1, gone_at=gone), row(2)), (), custody, NOW).since == NOW


def test_in_one_place_with_the_vault_nothing_is_final() -> None:
    """A copy of that place holds both."""
    assert decide(Erased(), ROWS, (), Custody(shared_place=True), NOW).pending == "shared-place"


@given(
    st.lists(st.sampled_from(["preparing", "current", "retiring", "destroyed"]), min_size=1, max_size=5),
    st.integers(min_value=1, max_value=6),
    st.sets(st.integers(min_value=1, max_value=6)),
)
def test_it_is_final_only_if_nothing_that_counts_lives(states: list[Any], epoch: int, living: set[int]) -> None:
    """Whatever the epochs: every one up to its own is destroyed, gone, and not with the keeper."""
    rows = [
        row(number, state=state) if state == "destroyed" else row(number, state=state, destroyed_at=None, gone_at=None)
        for number, state in enumerate(states, start=1)
    ]
    found = decide(Erased(epoch=epoch), rows, living, Custody(), NOW)
    gone = {number for number, state in enumerate(states, start=1) if state == "destroyed"} - living
    assert (found.since is not None) == (set(range(1, epoch + 1)) <= gone)
    assert (found.since is None) == (found.pending is not None)


@pytest.mark.parametrize(
    ("keks", "vault", "shared"),
    [
        ("kek", "keyvault.db", True),
        ("", "keyvault.db", True),
        ("", "vault/keyvault.db", True),
        ("vault/kek", "vault/keyvault.db", True),
        ("kek", "vault/keyvault.db", False),
    ],
)
def test_what_shares_a_place(tmp_path: Path, keks: str, vault: str, shared: bool) -> None:
    """One in the other, in whichever order."""
    provider = FileProvider(tmp_path / keks)
    assert shares_place(f"sqlite:///{tmp_path / vault}", provider, None) is shared
    # In one home everything is backed up together.
    assert shares_place(f"sqlite:///{tmp_path / vault}", provider, tmp_path)
    assert not shares_place("postgresql+psycopg://u:p@h/d", provider, tmp_path)


def test_a_link_is_seen_through(tmp_path: Path) -> None:
    """What counts is where it leads."""
    (tmp_path / "kek").mkdir()
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    assert shares_place(f"sqlite:///{tmp_path}/keyvault.db", FileProvider(tmp_path / "elsewhere" / "kek"), None)


def test_a_keeper_without_a_place_shares_none(tmp_path: Path) -> None:
    """A device or a service of its own."""

    class Device(FileProvider):
        place = None  # type: ignore[assignment]  # it has no folder

    assert not shares_place(f"sqlite:///{tmp_path}/keyvault.db", Device(tmp_path), tmp_path)
