"""The generations of a read model: each is built from the first event on, beside the one that readers see.

Readers see the first generation that is not retired. A later one is "building" until it has caught up; then it takes
over and all before it are retired, in one transaction, and their documents are deleted bit by bit. The very first is
"running" at once: there is nothing that it could stand beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from ledger.domain.projection import Projection
from ledger.errors import NotFoundError
from ledger.ports import Cursor, CursorKey, CursorState
from ledger.services.dependencies import Dependencies

FIRST: Final = 1
BEFORE_ALL: Final = -1


def begin(deps: Dependencies, ledger_id: UUID, projection: Projection, known: Sequence[Cursor]) -> Sequence[Cursor]:
    """Add the first generation of a projection, or one for a version of it that is newer than all there are.

    ``known``: the generations that there are. Several processes may do this at once: they add the same one.
    """
    living = [cursor for cursor in known if cursor.state != "retired"]
    if living and living[-1].version >= projection.version:
        return known
    return [*known, _add(deps, ledger_id, projection.name, projection.version, known)]


def rebuild(deps: Dependencies, ledger_id: UUID, name: str) -> Cursor:
    """Build a read model anew from the first event, while readers go on with what there is; gives the cursor of the
    generation that is being built. One that is being built already is enough, unless it has stopped. Done by whoever
    runs the projection. Raises ``NotFoundError``."""
    known = _known(deps, ledger_id, name)
    newest = known[-1]
    if newest.state == "building":
        return newest
    return _add(deps, ledger_id, name, newest.version, known)


def restart(deps: Dependencies, ledger_id: UUID, name: str) -> bool:
    """Go on with what has stopped, from where it stopped; False when nothing had. Raises ``NotFoundError``."""
    restarted = [
        deps.derived.cursors.restart_cursor(ledger_id, cursor.key)
        for cursor in _known(deps, ledger_id, name)
        if cursor.state == "stopped"
    ]
    return any(restarted)


def _known(deps: Dependencies, ledger_id: UUID, name: str) -> Sequence[Cursor]:
    known = deps.derived.cursors.cursors(ledger_id, "projection", name)
    if not known:
        raise NotFoundError("there is no projection of this name in this ledger; is a worker running?")
    return known


def _add(deps: Dependencies, ledger_id: UUID, name: str, version: int, known: Sequence[Cursor]) -> Cursor:
    number = known[-1].key.number + 1 if known else FIRST
    state: CursorState = "building" if any(cursor.state != "retired" for cursor in known) else "running"
    return deps.derived.cursors.add_cursor(ledger_id, CursorKey("projection", name, number), version, state, BEFORE_ALL)
