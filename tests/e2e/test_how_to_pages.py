"""The Python of the how-to pages and the examples runs as it stands, and shows what the pages say.

All ``python`` blocks of a page run in order in one namespace, in which ``ledger`` is an open, empty ledger and
``service`` the service behind it. What a page says is shown by ``assert``.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.config import Settings
from api.opening import open_ledger
from api.wiring import Service, migrate_databases, open_service, prepare_home
from ledger.domain.events import OPERATOR
from ledger.errors import NotFoundError
from ledger.open_ledger import OpenLedger
from ledger.services.ledgers import create_ledger
from tests.e2e.cli_support import ROOT

HOW_TO = ROOT / "docs" / "how-to"
EXAMPLES = ROOT / "docs" / "examples"
_BLOCK = re.compile(r"^```python\n(?P<text>.*?)^```$", re.M | re.S)


def code_of(page: str) -> str:
    """The ``python`` blocks of a page, each on the lines where it stands, so that errors name the page's lines."""
    lines: list[str] = []
    for block in _BLOCK.finditer(page):
        first = page[: block.start("text")].count("\n")
        lines += [""] * (first - len(lines)) + block["text"].splitlines()
    return "\n".join(lines)


PAGES = sorted(page for page in HOW_TO.glob("*.md") if code_of(page.read_text()))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A service that is prepared, as ``audit-ledger init`` leaves it."""
    settings = Settings.from_environment({"AUDIT_LEDGER_HOME": str(tmp_path / "home")})
    prepare_home(settings)
    migrate_databases(settings)
    return settings


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    """The service behind the ledger."""
    service = open_service(settings)
    service.vault.initialise()
    yield service
    service.close()


@pytest.fixture
def ledger(service: Service) -> OpenLedger:
    """An open, empty ledger."""
    return OpenLedger(service.deps, create_ledger(service.deps, "example").ledger_id, OPERATOR)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_the_page_runs(page: Path, service: Service, ledger: OpenLedger) -> None:
    """Every block, in order; and what was recorded on the way is whole."""
    code = compile(code_of(page.read_text()), str(page), "exec", dont_inherit=True)
    exec(code, {"__name__": page.stem, "ledger": ledger, "service": service})  # noqa: S102 - the page is ours
    assert ledger.verify().findings == ()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_the_example_runs(path: Path, ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ``main`` asserts what it shows; and what it has recorded is whole."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    # Where dataclasses look their annotations up.
    monkeypatch.setitem(sys.modules, path.stem, example)
    spec.loader.exec_module(example)
    example.main(ledger)
    assert ledger.verify().findings == ()


def test_there_are_pages_and_examples_to_run() -> None:
    """The two tests above would pass without any."""
    assert {"aggregates.md", "process-managers.md"} <= {page.name for page in PAGES}
    assert [path.name for path in EXAMPLES.glob("*.py")] == ["bank_account.py"]


def test_a_ledger_is_opened_by_its_name(settings: Settings, service: Service) -> None:
    """From the settings; one that is not there is not made on the way."""
    create_ledger(service.deps, "bank")
    with open_ledger("bank", settings) as bank:
        assert bank.append({"stream": "note-1", "type": "Noted", "nonpersonal": {"n": 1}}).events[0].position == 0
        assert bank.state("note-1").state.state == {"n": 1}
    with pytest.raises(NotFoundError), open_ledger("other", settings):
        pass


def test_code_that_fails_on_a_page_is_reported_with_its_line() -> None:
    """The lines of the code are those of the page."""
    blocks = ("```python\na = 1\n```", "text", "```console\n$ no\n```", "```python\nassert a == 1\nraise KeyError\n```")
    page = "\n\n".join(("# Title", *blocks)) + "\n"
    with pytest.raises(KeyError) as failed:
        exec(compile(code_of(page), "page.md", "exec"), {})  # noqa: S102 - as above
    assert failed.traceback[-1].lineno == page.splitlines().index("raise KeyError")
