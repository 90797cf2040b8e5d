"""The commands of the other tests run in the tests' process; here is shown that a process of its own does the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.cli_support import Cli, event, ndjson


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A home with a ledger of a few events, to be asked only."""
    made = Cli(tmp_path_factory.mktemp("asked") / "home")
    made.must("init")
    events = [event(data={"name": "Zoë"}), event("patient-B")]
    made.must("import", "-", "--source", "s", "--ledger", "er", "--create", text=ndjson(events))
    return made


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        (0, ("query", "--ledger", "er", "--subject", "@-", "--proof", "opened")),
        (0, ("verify", "--ledger", "er", "--json")),
        (0, ("keys", "list")),
        (0, ("checkpoint", "--ledger", "er")),
        (1, ("proof", "00000000-0000-7000-8000-000000000000", "--ledger", "er")),
        (1, ("verify", "--ledger", "nowhere")),
        (2, ("erase", "--ledger", "er", "patient:A")),
        (2, ("verfy",)),
    ],
)
def test_a_process_of_its_own_says_the_same(cli: Cli, status: int, arguments: tuple[str, ...]) -> None:
    """Exit status, standard output and standard error, byte for byte, with a name on standard input."""
    here, apart = (run(*arguments, text="patient:A\n") for run in (cli.run, cli.run_apart))
    assert (status, here.stdout, here.stderr) == (apart.returncode, apart.stdout, apart.stderr)
    assert status == here.returncode


def test_a_setting_that_cannot_be_meant_ends_a_process_too(tmp_path: Path) -> None:
    """Exit status 1 and one line, before anything is made."""
    cli = Cli(tmp_path / "home", {"AUDIT_LEDGER_KEK": "vault:canary"})
    here, apart = cli.run("init"), cli.run_apart("init")
    assert (here.returncode, here.stderr) == (apart.returncode, apart.stderr)
    assert (apart.returncode, apart.stderr.count("\n")) == (1, 1)
    assert not cli.home.exists()
