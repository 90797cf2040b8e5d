"""The report of a drill: signed JSON, and a page to read and to print. No name, no value, no key of anybody."""

from __future__ import annotations

import base64
import json
import os
import platform
import sqlite3
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from api.backups import BackupError, version_of
from api.config import SQLITE, Settings
from api.drill.checks import overall
from api.drill.notes import Notes, Plan
from api.drill.page import render_page
from api.drill.places import is_sqlite
from api.wiring import Service
from ledger.domain.events import JsonObject
from ledger.domain.ids import format_ref
from ledger.domain.receipts import canonical_json
from ledger.domain.times import format_time

DRILL_DOMAIN: Final = b"audit-ledger v1 drill\n"
"""Stands before the payload in what a report's signature signs, so that no other statement can pass for one."""


def report_of(plan: Plan, service: Service, notes: Notes) -> JsonObject:
    """What was tried, where, and what was found, signed by the drill's ledger as its statements are. Where not even
    that ledger could be made, the signature is null."""
    payload: JsonObject = {
        "kind": "drill",
        "verdict": overall(notes.checks),
        "ledger_id": str(notes.ledger_id) if notes.ledger_id is not None else None,
        "subject_ref": format_ref("sub", notes.subject_ref) if notes.subject_ref is not None else None,
        "key_ids": [key_id.hex() for key_id in notes.key_ids],
        "marks_sha256": notes.marks,
        "erasure_ids": notes.erasure_ids,
        "steps": [
            {"name": step.name, "began_at": format_time(step.began_at), "microseconds": step.took}
            for step in notes.steps
        ],
        "checks": [
            {
                "name": check.name,
                "where": check.where,
                "verdict": check.verdict,
                "found": check.found,
                "control": check.control,
            }
            for check in notes.checks
        ],
        "told": [{"name": told.name, "text": told.text} for told in notes.told],
        "backups": notes.backups,
        "versions": _versions(plan),
        "settings": _settings(plan),
        "written_at": format_time(service.deps.clock()),
    }
    signature = None
    if notes.ledger_id is not None:
        signature = base64.b64encode(service.vault.sign(notes.ledger_id, DRILL_DOMAIN + canonical_json(payload)))
    return {"payload": payload, "signature": signature.decode() if signature is not None else None}


def write_report(report: JsonObject, out: Path, now: int) -> tuple[Path, Path]:
    """Both files, ``drill-<time>.json`` and ``.html``, which nobody else can read. Raises ``OSError``."""
    time = datetime.fromtimestamp(now / 1_000_000, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    texts = {"json": json.dumps(report, ensure_ascii=False, indent=2) + "\n", "html": render_page(report)}
    paths = []
    for kind, text in texts.items():
        path = out / f"drill-{time}.{kind}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        paths.append(path)
    return paths[0], paths[1]


def _versions(plan: Plan) -> JsonObject:
    found = {
        "audit-ledger": version("gdpr-audit-ledger"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(),
    }
    if not all(map(is_sqlite, plan.databases.values())):
        try:
            found["pg_dump"] = version_of(plan.settings.pg_dump)
        except BackupError as error:  # the drill has failed of that, and there is a report of it
            found["pg_dump"] = str(error)
    return found


def _settings(plan: Plan) -> JsonObject:
    """What decides how to read the report, without users, passwords and PINs."""
    settings: Settings = plan.settings
    return {
        "databases": {name: _database(url) for name, url in plan.databases.items()},
        "kek": settings.kek if settings.kek.startswith("file:") else settings.kek.partition(":")[0],
        "journal": settings.journal,
        "kek_copies_days": settings.kek_copies_days,
        "data_directories": [str(place) for place in plan.data_directories],
        "server": plan.url,
        "without_destruction": plan.without_destruction,
    }


def _database(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == SQLITE:
        return f"SQLite, {parts.path[1:]}"
    return f"PostgreSQL, {parts.hostname or 'local'}:{parts.port or 5432}{parts.path}"
