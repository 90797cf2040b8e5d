"""Where KEKs are kept, of each kind: the setting, what processes need to reach it, and hands that take it away."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.kms import SECRET, KmsServer
from tests.support.softhsm import SoftHsm

KINDS = ("file", "pkcs11", "awskms")


@dataclass(frozen=True)
class Keeper:
    """A keeper without any KEK yet."""

    kind: str
    url: str
    environment: Mapping[str, str]
    take_away: Callable[[], object]
    bring_back: Callable[[], object]
    secrets: tuple[str, ...] = ()

    @contextmanager
    def away(self) -> Iterator[None]:
        """It is down meanwhile."""
        self.take_away()
        try:
            yield
        finally:
            self.bring_back()


def make_keeper(kind: str, folder: Path, kms: KmsServer) -> Keeper:
    """One of its own, in an empty folder."""
    if kind == "file":
        kek, away = folder / "kek", folder / "away"
        return Keeper(kind, f"file:{kek}", {}, lambda: kek.rename(away), lambda: away.rename(kek))
    if kind == "pkcs11":
        hsm = SoftHsm(folder / "hsm")
        return Keeper(kind, hsm.url, hsm.environment, hsm.take_away, hsm.bring_back, (hsm.pin,))
    url = kms.url_of(f"test-{secrets.token_hex(6)}")
    return Keeper(kind, url, kms.environment, kms.stop, kms.start, (SECRET,))
