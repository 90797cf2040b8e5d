"""Each write of a rotation and of a destruction is broken once: it fails, or it fails and is there all the same. Then
the service goes on, the command is run again, and nothing is lost and nothing has come back (I6 to I9, I12)."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import text

from keyvault import database, destruction, epoch_store, rotation
from keyvault.errors import EpochRefusedError, VaultUnavailableError
from keyvault.journal import Journal, JournalMark
from keyvault.providers.file import FileProvider
from ledger.domain.events import OPERATOR
from ledger.domain.query import EventQuery, NameOrRef
from ledger.services.appending.append import append_events
from ledger.services.erase import ErasureOrder, erase_subject
from ledger.services.evolution.types import set_policy
from ledger.services.read import query_events
from tests.support.breaking import BROKEN, BreakableDatabase, BreakingPoint, Mode
from tests.support.processes import processes
from tests.support.service import Place, Service, event, new_ledger, open_service, set_up, sqlite_place, verified

# What a rotation of these few keys writes, in order, and what a destruction does.
ROTATION = [
    "the row of the new epoch",
    "its KEK",
    "its line in the journal",
    "the switch",
    "the secrets",
    "the first keys",
    "the other keys",
    "the first link keys, from names",
    "the other link keys, from names",
    "the first link keys, from refs",
    "the other link keys, from refs",
    "the proof",
]
DESTRUCTION = ["the order", "its line in the journal", "the end of the KEK", "its end in the vault"]


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> BreakingPoint:
    """Through which every write of rotation and destruction goes."""
    found = BreakingPoint()
    for module in (rotation, destruction):
        monkeypatch.setattr(module, "database", BreakableDatabase(found))
    monkeypatch.setattr(FileProvider, "create", found.around(FileProvider.create))
    monkeypatch.setattr(FileProvider, "destroy", found.around(FileProvider.destroy))
    append = Journal.append

    def append_line(journal: Journal, kind: str, *arguments: Any, **named: Any) -> JournalMark:
        if not kind.startswith("epoch-"):
            return append(journal, kind, *arguments, **named)
        mark: JournalMark = found.around(append)(journal, kind, *arguments, **named)
        return mark

    monkeypatch.setattr(Journal, "append", append_line)
    return found


@pytest.mark.parametrize("mode", ["failed", "failed but persisted"])
def test_every_write_may_break_and_the_same_command_finishes(
    place: Place, point: BreakingPoint, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the step: the service goes on in between, and afterwards it is as if nothing had broken."""
    monkeypatch.setattr(rotation, "BATCH", 3)
    service = set_up(place)
    town = Town(service)
    epoch = 1
    for number, step in enumerate(ROTATION):
        point.arm(number, mode)
        with pytest.raises(VaultUnavailableError, match=BROKEN):
            service.vault.epochs.rotate()
        point.arm(-1, mode)
        town.goes_on(step)
        outcome = service.vault.epochs.rotate()
        assert outcome is not None
        assert outcome.finished, step
        # The proof of a broken rotation that is there all the same ended it: what came next was another one.
        ended = step == ROTATION[-1] and mode == "failed but persisted"
        assert outcome.epoch == epoch + 1 + ended, step
        epoch = outcome.epoch
        town.is_whole(step)
    assert [row.state for row in service.vault.epochs.overview().rows] == ["retiring"] * (epoch - 1) + ["current"]
    for number, step in enumerate(DESTRUCTION):
        target = number + 1
        service.vault.epochs.note_backup(service.deps.clock(), "made")
        point.arm(number, mode)
        with pytest.raises(VaultUnavailableError, match=BROKEN):
            service.vault.epochs.destroy(target)
        point.arm(-1, mode)
        town.goes_on(step)
        assert service.vault.epochs.destroy(target).state == "destroyed", step
        assert target not in service.vault._keyring.provider.epochs()
        town.is_whole(step)
    town.is_proven()
    service.close()


def test_the_table_names_every_write(tmp_path: Path, point: BreakingPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that somebody adds has to be broken too."""
    monkeypatch.setattr(rotation, "BATCH", 3)
    service = set_up(sqlite_place(tmp_path / "home"))
    Town(service)
    point.arm(-1, "failed")
    service.vault.epochs.rotate()
    assert point.seen == len(ROTATION)
    service.vault.epochs.note_backup(service.deps.clock(), "made")
    point.arm(-1, "failed")
    service.vault.epochs.destroy(1)
    assert point.seen == len(DESTRUCTION)
    service.close()


class Town:
    """A ledger with people in it: some live, some are erased, and more come while things break."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.ledger_id = new_ledger(service).ledger_id
        # With their names: so the link keys, too, are those of the living.
        set_policy(service.deps, self.ledger_id, {"unlink_after": 0})
        self.numbers = itertools.count(1)
        self.living: list[str] = []
        self.erased: list[str] = []
        for _ in range(4):
            self.move_in()

    def move_in(self) -> None:
        """One more person is written about."""
        name = f"person:{next(self.numbers)}"
        append_events(self.service.deps, self.ledger_id, [self._event(name)], OPERATOR)
        self.living.append(name)

    def forget(self) -> None:
        """One of them is erased."""
        name = self.living.pop(0)
        erase_subject(
            self.service.deps,
            self.ledger_id,
            ErasureOrder(NameOrRef(name, None), None, None, None, block_unknown=False, requested_by=OPERATOR),
        )
        self.erased.append(name)

    def goes_on(self, step: str) -> None:
        """Right after something broke: people are written about, erased and read, with no memory of any key."""
        self.move_in()
        self.forget()
        self.is_whole(step)

    def is_whole(self, step: str) -> None:
        """All who live can be read, nobody else can be, and nobody was alarmed (I7 to I9)."""
        fresh = open_service(self.service.place)
        query = EventQuery(types=("Noted",))
        opened = query_events(fresh.deps, self.ledger_id, query, cursor=None, limit=100).events
        readable = [one.subject.data for one in opened if one.subject is not None and one.subject.data is not None]
        assert [{"name": name} for name in self.living] == readable, step
        hidden = [redaction.reason for one in opened for redaction in one.redactions if redaction.pointer == "/data"]
        assert hidden == ["erased"] * len(self.erased), step
        states = fresh.vault.look_up_keys(self.ledger_id, fresh.store.shredded_keys(self.ledger_id).keys())
        assert [view.status for view in states.values()] == ["fenced"] * len(self.erased), step
        assert fresh.alarms == []
        fresh.close()

    def is_proven(self) -> None:
        """Not a byte of the log has changed (I6)."""
        verified(self.service, self.ledger_id)

    @staticmethod
    def _event(name: str) -> Any:
        return event(f"case-{name.replace(':', '')}", subject=name, data={"name": name})


# Killed


def die(*_: object, **__: object) -> NoReturn:
    """The process is gone, as in a power cut."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


KILLS: dict[str, Callable[[], None]] = {
    "with a new epoch that has no KEK": lambda: setattr(FileProvider, "create", die),
    "with a new KEK that no journal knows": lambda: setattr(Journal, "append", die),
    "in the switch": lambda: setattr(epoch_store, "make_epoch_current", die),
    "with a new epoch and all under the old": lambda: setattr(epoch_store, "rewrap_secrets", die),
    "among the keys": lambda: setattr(epoch_store, "rewrap_keys", die),
    "before the proof": lambda: setattr(rotation, "_prove", die),
    "after the order": lambda: setattr(destruction, "_carry_out", die),
    "with a line that says it is gone": lambda: setattr(FileProvider, "destroy", die),
    "with the KEK gone": lambda: setattr(epoch_store, "mark_destroyed", die),
}


@pytest.mark.parametrize("kill", KILLS)
def test_killed_with_sigkill_and_run_again(place: Place, kill: str) -> None:
    """The lock that keeps others out ends with the process, and the next one finishes."""
    service = set_up(place)
    town = Town(service)
    victim = processes.Process(target=rotate_and_destroy, args=(place, kill))
    victim.start()
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL
    town.goes_on(kill)
    service.vault.epochs.complete_destructions()
    service.vault.epochs.rotate()
    service.vault.epochs.note_backup(service.deps.clock(), "made")
    assert service.vault.epochs.destroy(1).state == "destroyed"
    assert 1 not in service.vault._keyring.provider.epochs()
    with database.reading(service.vault.engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM subject_keys WHERE epoch = 1")).scalar_one() == 0
    with pytest.raises(EpochRefusedError):
        service.vault.epochs.destroy(max(row.epoch for row in service.vault.epochs.overview().rows))
    town.is_whole(kill)
    town.is_proven()
    service.close()


def rotate_and_destroy(place: Place, kill: str) -> None:
    """The victim."""
    service = open_service(place)
    KILLS[kill]()
    service.vault.epochs.rotate()
    service.vault.epochs.note_backup(service.deps.clock(), "made")
    service.vault.epochs.destroy(1)
