"""The reference pages say what the code says, and links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api import config
from api.commands.reference import reference_text
from api.config import Settings
from api.problems import ALL_KINDS

ROOT = Path(__file__).parents[2]
SETTINGS_PAGE = ROOT / "docs" / "reference" / "settings.md"
ERRORS_PAGE = ROOT / "docs" / "reference" / "errors.md"
COMMAND_LINE_PAGE = ROOT / "docs" / "reference" / "command-line.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HOME = "/srv/ledger"


def rows(page: Path) -> list[list[str]]:
    """The cells of the page's tables, without their headers."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("| `") or re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def documented_settings() -> dict[str, str]:
    """Setting → what the page says is its default."""
    return {row[0].strip(" `"): row[1] for row in rows(SETTINGS_PAGE)}


def test_every_setting_is_documented_and_no_other() -> None:
    """The table has exactly the names that the code reads."""
    read = set(re.findall(r'"(AUDIT_LEDGER_[A-Z_]+|PORT)"', Path(config.__file__).read_text()))
    assert set(documented_settings()) == read


def test_the_documented_defaults_are_the_defaults() -> None:
    """A setting that is set to its documented default changes nothing."""
    by_default = Settings.from_environment({"AUDIT_LEDGER_HOME": HOME})
    stated = {name: text.strip("`").replace("$AUDIT_LEDGER_HOME", HOME) for name, text in documented_settings().items()}
    simple = {name: text for name, text in stated.items() if documented_settings()[name].startswith("`")}
    for name, value in simple.items():
        if name != "AUDIT_LEDGER_HOME":
            assert Settings.from_environment({"AUDIT_LEDGER_HOME": HOME, name: value}) == by_default, name
    assert Settings.from_environment({"AUDIT_LEDGER_HOME": simple["AUDIT_LEDGER_HOME"]}) == Settings.from_environment(
        {}
    )
    assert set(stated) - set(simple) == {
        "AUDIT_LEDGER_JOURNAL_KEY",
        "AUDIT_LEDGER_MIGRATE_DATABASE_URL",
        "AUDIT_LEDGER_MIGRATE_KEYVAULT_URL",
        "AUDIT_LEDGER_ROTATE_DAYS",
        "AUDIT_LEDGER_WITNESSES",
        "AUDIT_LEDGER_WORKERS",
    }
    assert by_default.witnesses is None
    assert by_default.journal_key is None
    assert by_default.migrate_database_url is None
    assert by_default.migrate_keyvault_url is None
    assert stated["AUDIT_LEDGER_ROTATE_DAYS"] == (
        f"{by_default.rotate_days} with KEKs in files, else {config.DEFAULT_ROTATE_DAYS}"
    )
    assert stated["AUDIT_LEDGER_WORKERS"] == (
        f"{by_default.workers} on SQLite, {config.POSTGRESQL_WORKERS} on PostgreSQL"
    )


def test_the_documented_limits_are_the_limits() -> None:
    """Ranges and choices in the table are those of the code."""
    page = SETTINGS_PAGE.read_text()
    assert f"1 to {config.MOST_WORKERS}" in page
    assert f"1 to {config.MOST_THREADS}" in page
    assert all(f"`{level}`" in page for level in config.LOG_LEVELS)


def test_every_error_is_documented_with_its_status_and_no_other() -> None:
    """The table has exactly the problems that the API answers with."""
    documented = {(int(row[0].strip("| ")), row[1].strip("`")) for row in rows(ERRORS_PAGE)}
    assert documented == {(kind.status, kind.code) for kind in ALL_KINDS}


def test_the_command_line_page_is_what_the_commands_print() -> None:
    """Every command with every option; ``python -m api.commands.reference`` writes the page anew."""
    assert COMMAND_LINE_PAGE.read_text() == reference_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """Every relative link is a file of the project."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target
