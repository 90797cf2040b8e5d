"""KEKs in files: durable, private, never replaced."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keyvault.errors import InsecureFolderError, NotAuthenticError, ProviderError, VaultUnavailableError
from keyvault.providers import KeyProvider, provider_from_url
from keyvault.providers.file import FileProvider


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the KEK of epoch 1."""
    FileProvider(tmp_path / "kek").create(1)
    return tmp_path / "kek"


def test_what_is_wrapped_unwraps_in_another_process_s_provider(folder: Path) -> None:
    """The KEK is in the file and nowhere else: a provider made later unwraps it."""
    provider: KeyProvider = provider_from_url(f"file:{folder}")
    blob = FileProvider(folder).wrap(1, b"d" * 32, b"aad")
    assert provider.unwrap(1, blob, b"aad") == b"d" * 32
    with pytest.raises(NotAuthenticError):
        provider.unwrap(1, blob, b"other")


def test_folder_and_file_are_private_and_nothing_else_is_left(folder: Path) -> None:
    """0700 and 0600, and no second name of the KEK."""
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["epoch-1.kek"]
    status = (folder / "epoch-1.kek").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o600, 1)


def test_a_kek_is_never_replaced(folder: Path) -> None:
    """Creating an epoch again keeps its KEK: keys are wrapped under it."""
    before = (folder / "epoch-1.kek").read_bytes()
    FileProvider(folder).create(1)
    assert before == (folder / "epoch-1.kek").read_bytes()


def test_many_creators_make_one_kek(tmp_path: Path) -> None:
    """Whoever creates at the same time ends up with the same KEK."""
    providers = [FileProvider(tmp_path / "kek") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda provider: provider.create(1), providers))
    blob = providers[0].wrap(1, b"d" * 32, b"")
    assert {b"d" * 32} == {provider.unwrap(1, blob, b"") for provider in providers}
    assert [path.name for path in (tmp_path / "kek").iterdir()] == ["epoch-1.kek"]


def test_epochs_have_keks_of_their_own(folder: Path) -> None:
    """What is wrapped under one epoch does not unwrap under the next."""
    provider = FileProvider(folder)
    provider.create(2)
    with pytest.raises(NotAuthenticError):
        provider.unwrap(2, provider.wrap(1, b"d" * 32, b""), b"")


def test_what_a_crash_left_is_cleared(folder: Path) -> None:
    """A crash between link and unlink leaves a second name of a KEK; the next create takes it away."""
    os.link(folder / "epoch-1.kek", folder / ".new-0011223344556677.kek")
    FileProvider(folder).create(1)
    assert [path.name for path in folder.iterdir()] == ["epoch-1.kek"]


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o701, 0o770])
def test_an_open_folder_is_refused(folder: Path, mode: int) -> None:
    """A folder that others can enter is refused for every use, with what to do."""
    folder.chmod(mode)
    provider = FileProvider(folder)
    for attempt in (lambda: provider.wrap(1, b"", b""), lambda: provider.create(1), lambda: provider.create(2)):
        with pytest.raises(InsecureFolderError, match="chmod 700"):
            attempt()
    assert not (folder / "epoch-2.kek").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_an_open_file_is_refused(folder: Path, mode: int) -> None:
    """A KEK that others can read is refused, with what to do."""
    (folder / "epoch-1.kek").chmod(mode)
    with pytest.raises(InsecureFolderError, match="chmod 600"):
        FileProvider(folder).wrap(1, b"", b"")


def test_someone_else_s_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that belongs to another user is refused, since that user can read and replace the KEKs."""
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(InsecureFolderError, match="chown"):
        FileProvider(folder).wrap(1, b"", b"")


def test_a_link_in_place_of_a_kek_is_refused(folder: Path) -> None:
    """A symbolic link could lead to a file that others choose."""
    (folder / "epoch-1.kek").rename(folder.parent / "elsewhere")
    (folder / "epoch-1.kek").symlink_to(folder.parent / "elsewhere")
    with pytest.raises(ProviderError):
        FileProvider(folder).wrap(1, b"", b"")


def test_a_missing_kek_is_unavailable_at_once(folder: Path) -> None:
    """I9: a KEK that is taken away is a provider that is down, also for a provider that has used it before."""
    provider = FileProvider(folder)
    blob = provider.wrap(1, b"d" * 32, b"")
    (folder / "epoch-1.kek").unlink()
    with pytest.raises(VaultUnavailableError, match="put the file back"):
        provider.unwrap(1, blob, b"")


@pytest.mark.parametrize("content", [b"", b"\x01", b"\x00" * 41, b"\x01" + b"\x00" * 40, b"\x02" + b"\x00" * 60])
def test_a_rotten_kek_is_unavailable_and_not_damage(folder: Path, content: bytes) -> None:
    """I9: a KEK file that rotted must not make every key look tampered with."""
    (folder / "epoch-1.kek").write_bytes(content)
    with pytest.raises(ProviderError, match="not a KEK file"):
        FileProvider(folder).wrap(1, b"", b"")


def test_a_copy_under_another_name_is_told(folder: Path) -> None:
    """By what is in it; not what is something else, and nothing that is not a file. It serves nobody as a KEK."""
    kek = (folder / "epoch-1.kek").read_bytes()
    for name, content in {"epoch-1.kek.bak": kek, "notes": b"x" * 41, "longer": kek + b"x", "empty": b""}.items():
        (folder / name).write_bytes(content)
    (folder / "lost+found").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("epoch-1.kek")
    provider = FileProvider(folder)
    assert provider.strays() == ("epoch-1.kek.bak",)
    assert provider.epochs() == {1}
