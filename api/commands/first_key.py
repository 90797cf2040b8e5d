"""The API key of the first start, and the file that it is written to.

The secret exists only in that file. A crash between the row in the database and the file would lose it, so a pending
file is made first and tells the next start of the crash: the key whose secret nobody has is then revoked, and another
one is made. Without the pending file, keys that are there mean that this is not the first start: then none is made, or
whoever takes the file away to keep it safely would find a new all-powerful key after every start.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from api.private_files import sync, write_private
from ledger.domain.access import AccessRole
from ledger.services.api_keys import create_api_key, list_api_keys, revoke_api_key
from ledger.services.dependencies import Dependencies

KEY_FILE: Final = "admin-key"
PENDING_FILE: Final = "admin-key.pending"
LOCK_FILE: Final = "init.lock"
PRINCIPAL: Final = "operator"


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Let one process at a time set this home up; the others wait."""
    descriptor = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def ensure_first_key(deps: Dependencies, home: Path) -> Path | None:
    """Make the operator's key with all roles, unless there are keys already. To be called by ``only_one``.

    Gives the path of the file with its secret, also of one that was there before; None when there is none.
    """
    path, pending = home / KEY_FILE, home / PENDING_FILE
    if path.exists():
        # I12: a crash after the link left the pending file behind.
        pending.unlink(missing_ok=True)
        return path
    if pending.exists():
        _revoke_lost(deps)
    elif list_api_keys(deps):
        return None
    write_private(pending, b"")
    issued = create_api_key(
        deps, name=KEY_FILE, principal=PRINCIPAL, roles=list(AccessRole), ledger_id=None, expires_at=None
    )
    write_private(pending, issued.secret.encode() + b"\n")
    # Not a rename: that would put the new secret over a file that appeared meanwhile.
    os.link(pending, path)
    pending.unlink()
    sync(home)
    return path


def _revoke_lost(deps: Dependencies) -> None:
    for key in list_api_keys(deps):
        if (key.name, key.principal) == (KEY_FILE, PRINCIPAL) and key.last_used_at is None and key.revoked_at is None:
            revoke_api_key(deps, key.key_id)
