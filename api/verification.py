"""What ``audit-ledger verify`` prints, and the file in which it keeps how far it was."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from api.config import Settings
from api.private_files import sync, write_private
from api.wiring import open_service
from ledger.domain.times import format_time
from ledger.domain.verdicts import VERDICTS, Finding, VerifyReport
from ledger.services.dependencies import Dependencies
from ledger.services.verifying.verification import Verified

KEEP_SECONDS: Final = 1.0
"""How often the file is written anew while rows are read."""

_FORMAT: Final = 2


class StateFileError(Exception):
    """The file of an earlier run cannot be used."""


@contextmanager
def opened_dependencies(settings: Settings) -> Iterator[Dependencies]:
    """For a process that helps: a service of its own."""
    service = open_service(settings)
    try:
        yield service.deps
    finally:
        service.close()


def root_text(root: bytes) -> str:
    """A root as checkpoints show it."""
    return base64.b64encode(root).decode()


def report_json(ledger_name: str, report: VerifyReport) -> str:
    """The report as docs/reference/verify-report.md describes it."""
    result = {
        "ledger": ledger_name,
        "size": report.size,
        "root": root_text(report.root),
        "head_root": root_text(report.head_root),
        "intact": report.intact,
        "first": report.first,
        "opened": report.opened,
        "checkpoints": report.checkpoints,
        "events": {verdict: report.counts.get(verdict, 0) for verdict in VERDICTS},
        "number": report.number,
        "findings": [asdict(finding) for finding in report.findings],
    }
    return json.dumps(result)


def report_text(report: VerifyReport, since: Verified | None) -> str:
    """The report for a person; one line for each thing that is wrong."""
    lines = [f"size {report.size}", f"root {root_text(report.root)}"]
    if since is not None and report.first:
        when = format_time(since.at)
        lines.append(f"not read again: positions 0 to {report.first - 1}, which were right at {when}")
    counted = [f"{report.counts[verdict]} {verdict}" for verdict in reversed(VERDICTS) if report.counts.get(verdict)]
    lines.append(f"events: {', '.join(counted) or 'none'}")
    if not report.opened:
        lines.append("not checked: whether parts open, and who signed the checkpoints; that takes the KEK")
    lines.append(f"checkpoints: {report.checkpoints}")
    if report.root != report.head_root:
        lines.append(f"wrong: the head says that the root is {root_text(report.head_root)}")
    lines += [f"wrong: {_finding_text(finding)}" for finding in report.findings]
    if report.number > len(report.findings):
        lines.append(f"wrong: and {report.number - len(report.findings)} findings more")
    return "\n".join([*lines, "intact" if report.intact else "not intact"])


def _finding_text(finding: Finding) -> str:
    one = finding.position == finding.last
    where = f"position {finding.position}" if one else f"positions {finding.position} to {finding.last}"
    verdict = f"{finding.verdict}: " if finding.verdict is not None else ""
    event = f" (event {finding.event_id})" if finding.event_id is not None else ""
    return f"{where}: {verdict}{finding.what}{event}"


@dataclass
class StateFile:
    """How far a ledger was found to be right, in a file that nobody else may read."""

    path: Path
    _newest: Verified | None = None
    _written: float = 0.0

    def read(self) -> Verified | None:
        """What an earlier run has kept; None where there is no file. Raises :class:`StateFileError`."""
        try:
            kept = json.loads(self.path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except ValueError:
            raise self._unreadable() from None
        try:
            return _verified_from(kept)
        except (KeyError, TypeError, ValueError):
            raise self._unreadable() from None

    def keep(self, verified: Verified) -> None:
        """Note how far it is; written now and then."""
        self._newest = verified
        if time.monotonic() - self._written >= KEEP_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was noted last."""
        if self._newest is None:
            return
        # Another name first: a crash leaves either the old file or the new one.
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        write_private(beside, json.dumps(_as_json(self._newest)).encode())
        beside.replace(self.path)
        sync(self.path.parent)
        self._newest, self._written = None, time.monotonic()

    def _unreadable(self) -> StateFileError:
        return StateFileError(f"{self.path} is not what `verify --state` writes; remove it to verify everything anew")


def _as_json(verified: Verified) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "ledger_id": str(verified.ledger_id),
        "size": verified.size,
        "frontier": [node.hex() for node in verified.frontier],
        "last_time": verified.last_time,
        "opened": verified.opened,
        "at": verified.at,
        "compared": verified.compared,
        "roots": f"{verified.roots:x}",
        "key": verified.key.hex(),
        "sums": {str(number): f"{one:x}" for number, one in verified.sums},
    }


def _verified_from(kept: dict[str, Any]) -> Verified:
    if kept["format"] != _FORMAT:
        raise ValueError("another format")
    return Verified(
        ledger_id=UUID(kept["ledger_id"]),
        size=int(kept["size"]),
        frontier=tuple(bytes.fromhex(node) for node in kept["frontier"]),
        last_time=kept["last_time"],
        opened=bool(kept["opened"]),
        key=bytes.fromhex(kept["key"]),
        sums=tuple((int(number), int(one, 16)) for number, one in kept["sums"].items()),
        at=int(kept["at"]),
        compared=int(kept["compared"]),
        roots=int(kept["roots"], 16),
    )
