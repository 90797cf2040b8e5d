"""KEKs in files: destroyed for good, whatever happens on the way, and kept out of places that are copied."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyvault.errors import InsecureFolderError, NotAuthenticError, ProviderError
from keyvault.providers import file
from keyvault.providers.file import FileProvider

DEK = bytes(range(32))
UNUSED = ".new-0011223344556677.kek"
SECOND_NAME = ".new-8899aabbccddeeff.kek"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the KEKs of epochs 1 and 2."""
    provider = FileProvider(tmp_path / "kek")
    provider.create(1)
    provider.create(2)
    return tmp_path / "kek"


class Crash(BaseException):
    """The process dies here."""


class FaultyOs:
    """The module ``os`` with a crash before or after the n-th call that changes something."""

    def __init__(self, step: int, *, persisted: bool) -> None:
        self.left = step
        self.persisted = persisted

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._faulty(real) if name in ("write", "fsync", "unlink", "link") else real

    def _faulty(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.persisted:
                raise Crash
            result = real(*arguments, **named)
            if self.left == 0:
                raise Crash
            return result

        return faulty


def test_a_destroyed_kek_is_overwritten_before_its_name_goes(folder: Path) -> None:
    """Whoever holds the file open, or another name of it, finds zeros."""
    os.link(folder / "epoch-1.kek", folder.parent / "copy")
    with (folder / "epoch-1.kek").open("rb") as held:
        FileProvider(folder).destroy(1)
        assert held.read() == bytes(41)
    assert (folder.parent / "copy").read_bytes() == bytes(41)
    assert [path.name for path in folder.iterdir()] == ["epoch-2.kek"]


def test_what_crashes_left_goes_with_it_and_living_keks_stay(folder: Path) -> None:
    """A leftover without another name is overwritten; one that is a second name of a living KEK must not be."""
    provider = FileProvider(folder)
    blob = provider.wrap(2, DEK, b"")
    (folder / UNUSED).write_bytes(b"\x01" + bytes(range(40)))
    os.link(folder / "epoch-2.kek", folder / SECOND_NAME)
    with (folder / UNUSED).open("rb") as held:
        provider.destroy(1)
        assert held.read() == bytes(41)
    assert provider.unwrap(2, blob, b"") == DEK
    assert [path.name for path in folder.iterdir()] == ["epoch-2.kek"]


@pytest.mark.parametrize("persisted", [False, True])
def test_a_crash_at_any_step_leaves_what_is_destroyed_by_the_next_call(folder: Path, *, persisted: bool) -> None:
    """I12: in between, the epoch counts as there, its KEK is whole or unusable and never taken for another; and no
    living KEK is touched."""
    provider = FileProvider(folder)
    steps = 0
    while True:
        steps += 1
        provider.create(1)
        blobs = {epoch: provider.wrap(epoch, DEK, b"") for epoch in (1, 2)}
        os.link(folder / "epoch-2.kek", folder / SECOND_NAME)
        (folder / UNUSED).write_bytes(b"\x01" + bytes(range(40)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(file, "os", FaultyOs(steps, persisted=persisted))
            try:
                FileProvider(folder).destroy(1)
            except Crash:
                crashed = True
            else:
                crashed = False
        there = (folder / "epoch-1.kek").exists()
        assert (provider.epochs() == frozenset({1, 2})) == there
        try:
            assert provider.unwrap(1, blobs[1], b"") == DEK
        except NotAuthenticError:
            pytest.fail("a KEK that was being destroyed was taken for one")
        except ProviderError:
            pass
        assert provider.unwrap(2, blobs[2], b"") == DEK
        provider.destroy(1)
        assert [path.name for path in folder.iterdir()] == ["epoch-2.kek"]
        assert provider.unwrap(2, blobs[2], b"") == DEK
        if not crashed:
            break
    assert steps > 8


@pytest.mark.parametrize("persisted", [False, True])
def test_a_creation_that_crashes_at_any_step_is_completed_by_the_next(folder: Path, *, persisted: bool) -> None:
    """I12: what was wrapped under a KEK that was seen in between stays readable; one KEK is left, under one name."""
    provider = FileProvider(folder)
    steps = 0
    while True:
        steps += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(file, "os", FaultyOs(steps, persisted=persisted))
            try:
                FileProvider(folder).create(3)
            except Crash:
                crashed = True
            else:
                crashed = False
        blob = provider.wrap(3, DEK, b"") if 3 in provider.epochs() else None
        provider.create(3)
        assert blob is None or provider.unwrap(3, blob, b"") == DEK
        assert sorted(path.name for path in folder.iterdir()) == ["epoch-1.kek", "epoch-2.kek", "epoch-3.kek"]
        assert (folder / "epoch-3.kek").stat().st_nlink == 1
        provider.destroy(3)
        if not crashed:
            break
    assert steps > 5


def test_a_kek_that_was_half_overwritten_is_no_kek(folder: Path) -> None:
    """Its check bytes tell; it still counts as an epoch that is there, until it is destroyed."""
    provider = FileProvider(folder)
    blob = provider.wrap(1, DEK, b"")
    content = (folder / "epoch-1.kek").read_bytes()
    for size in (1, 2, 20, 33, 40, 41):
        (folder / "epoch-1.kek").write_bytes(bytes(size) + content[size:])
        with pytest.raises(ProviderError, match="not a KEK file"):
            provider.unwrap(1, blob, b"")
        assert provider.epochs() == frozenset({1, 2})
    provider.destroy(1)
    assert provider.epochs() == frozenset({2})


def test_only_files_of_epochs_count(folder: Path) -> None:
    """Other names are nobody's epoch."""
    for name in ("epoch-01.kek", "epoch-0.kek", "epoch-x.kek", "epoch-3.kek.bak", "epoch-3", UNUSED):
        (folder / name).touch(0o600)
    assert FileProvider(folder).epochs() == frozenset({1, 2})


def test_a_folder_that_is_missing_is_no_empty_one(tmp_path: Path) -> None:
    """A disk that is not mounted holds KEKs all the same."""
    provider = FileProvider(tmp_path / "kek")
    with pytest.raises(ProviderError, match="is its disk there"):
        provider.epochs()
    with pytest.raises(ProviderError, match="cannot destroy"):
        provider.destroy(1)


@pytest.mark.parametrize("above", ["kek", "", ".."])
def test_a_folder_in_a_data_directory_of_postgresql_is_refused(folder: Path, above: str) -> None:
    """Every backup of the database would hold the KEKs. The embedded default beside SQLite files is let be."""
    FileProvider(folder).wrap(1, DEK, b"")
    (folder.parent / above / "PG_VERSION").write_text("17\n")
    try:
        for attempt in (lambda: FileProvider(folder).wrap(1, b"", b""), lambda: FileProvider(folder).create(3)):
            with pytest.raises(InsecureFolderError, match="give the KEKs a folder elsewhere"):
                attempt()
    finally:
        (folder.parent / above / "PG_VERSION").unlink()
    assert not (folder / "epoch-3.kek").exists()


def test_a_link_in_place_of_the_folder_is_refused(folder: Path) -> None:
    """Whoever may change the link would choose the KEKs; links further up are the operator's own."""
    (folder.parent / "link").symlink_to(folder)
    with pytest.raises(InsecureFolderError, match="symbolic link"):
        FileProvider(folder.parent / "link").wrap(1, b"", b"")
    (folder.parent / "above").symlink_to(folder.parent)
    provider = FileProvider(folder.parent / "above" / "kek")
    assert provider.unwrap(1, FileProvider(folder).wrap(1, DEK, b""), b"") == DEK


def test_a_link_in_place_of_a_kek_is_not_followed(folder: Path) -> None:
    """Destroying must not overwrite what somebody else pointed at."""
    (folder.parent / "precious").write_bytes(b"precious")
    (folder / "epoch-3.kek").symlink_to(folder.parent / "precious")
    with pytest.raises(ProviderError, match="cannot destroy"):
        FileProvider(folder).destroy(3)
    assert (folder.parent / "precious").read_bytes() == b"precious"
