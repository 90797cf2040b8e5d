"""What every long-lived process does before its work: look at its dependencies, and tie its life to another's."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

from api.config import SettingsError
from api.guard import Guard
from api.wiring import OK, Service

_PR_SET_PDEATHSIG: Final = 1
_PERHAPS_RESTORED: Final = frozenset({"kek", "journal"})


class StartError(SettingsError):
    """The service cannot be started as things are. The message says what to do."""


def check_dependencies(service: Service, guard: Guard) -> None:
    """Raise ``StartError`` unless everything is there that the service needs; then look whether any of it was restored
    from an older copy, and mend what that has undone.

    A service beside an old copy starts all the same, not ready, and says why: whether KEKs and journal can be used is
    asked only where nothing of that kind was found.
    """
    states = service.check()
    if states["migrations"] != OK:
        raise StartError(f"migrations are {states['migrations']}")
    missing = {name: state for name, state in states.items() if state != OK}
    if not missing.keys() - _PERHAPS_RESTORED and guard.start():
        return
    missing = {name: state for name, state in service.check().items() if state != OK}
    if missing:
        what = "; ".join(f"{name}: {state}" for name, state in missing.items())
        raise StartError(f"not everything that the service needs is there. {what}")


def end_with(parent: int, how: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent dies, however it dies. Only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:  # it died before the kernel knew
            os.kill(os.getpid(), how)
