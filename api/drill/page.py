"""The report as one page of HTML: no scripts, nothing from elsewhere, and black on white when it is printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from ledger.domain.events import JsonObject

_MEANING: Final = {
    "held": "Everything that was tried was looked at, and nothing of the erased person opened.",
    "failed": "Something did not hold. The lines marked failed say what and where.",
    "not looked at": "Nothing failed, and not everything was looked at: this shows less than it could.",
}
_STORY: Final = (
    "A made-up person is recorded in every way, read, exported, backed up and erased; before and afterwards every copy "
    "that can be seen from here is searched. Evidence for Art. 32(1)(d) GDPR."
)
_DESTROYED: Final = "In between, the keys that wrapped the person's keys (KEKs) are replaced, and destroyed."
_SPARED: Final = "Nothing was rotated and no KEK destroyed: what that would have shown is not shown."
_STYLE: Final = """
body { font: 11pt/1.45 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #111; background: #fff }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0 1.5rem }
th, td { border: 1px solid #999; padding: 0.3rem 0.5rem; text-align: left; vertical-align: top }
td { overflow-wrap: anywhere }
th { background: #eee }
tr { break-inside: avoid }
.held { color: #0a5c2b } .failed { color: #a11212; font-weight: bold } .unseen { color: #7a5200; font-weight: bold }
.verdict { font-size: 1.4em; border: 2px solid; padding: 0.5rem 1rem }
@media print { body { margin: 0; max-width: none } }
"""
_CLASSES: Final = {"held": "held", "failed": "failed", "not looked at": "unseen"}


def render_page(report: JsonObject) -> str:
    """The page. Shows all of the JSON."""
    payload = report["payload"]
    verdict = payload["verdict"]
    checks = [
        (
            check["name"],
            check["where"],
            _Verdict(check["verdict"]),
            check["found"],
            check["control"],
        )
        for check in payload["checks"]
    ]
    facts = [
        ("written", payload["written_at"]),
        ("ledger", payload["ledger_id"] or ""),
        ("canary", payload["subject_ref"] or ""),
        ("its keys", ", ".join(payload["key_ids"])),
        ("its words (SHA-256)", ", ".join(payload["marks_sha256"])),
        ("erasures", ", ".join(payload["erasure_ids"])),
        ("backups that were kept", ", ".join(payload["backups"]) or "none"),
        *((name, str(value)) for name, value in payload["versions"].items()),
        *((name, str(value)) for name, value in payload["settings"].items()),
        ("signature (Ed25519, of the JSON's payload)", report["signature"] or "none"),
    ]
    steps = [(step["name"], step["began_at"], f"{step['microseconds'] / 1_000_000:.3f} s") for step in payload["steps"]]
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f"<title>Erasure drill, {escape(payload['written_at'])}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            "<h1>Erasure drill</h1>",
            f'<p class="verdict {_CLASSES[verdict]}">{escape(verdict)}: {escape(_MEANING[verdict])}</p>',
            f"<p>{_STORY} {_SPARED if payload['settings']['without_destruction'] else _DESTROYED}</p>",
            "<h2>What was tried</h2>",
            *_table(("check", "where", "verdict", "found", "the search sees, because"), checks),
            "<h2>What decides nothing</h2>",
            *_table(("what", "it says"), [(told["name"], told["text"]) for told in payload["told"]]),
            "<h2>Steps</h2>",
            *_table(("step", "began", "took"), steps),
            "<h2>Of what</h2>",
            *_table(("what", "it was"), facts),
            "</body>\n</html>\n",
        )
    )


class _Verdict(str):
    """Shown in its colour."""

    __slots__ = ()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["<table>", "<tr>" + "".join(f"<th>{escape(title)}</th>" for title in head) + "</tr>"]
    lines += ["<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows]
    return [*lines, "</table>"]


def _cell(value: str) -> str:
    shown = f' class="{_CLASSES[value]}"' if isinstance(value, _Verdict) else ""
    return f"<td{shown}>{escape(value)}</td>"
