"""The frame of ``scripts/bench``: it measures in turns, and a bar that is missed shows."""

from __future__ import annotations

import io

import pytest

from scripts.benchmarks import __main__ as bench
from scripts.benchmarks.frame import AtLeast, AtMost, Report, in_turns


def report_of() -> tuple[Report, io.StringIO]:
    """A report that writes to memory."""
    out = io.StringIO()
    return Report(full=False, out=out), out


def test_works_take_turns_and_the_first_turn_is_not_counted() -> None:
    """Every second round goes backwards."""
    turns: list[str] = []
    times = in_turns([lambda: turns.append("a"), lambda: turns.append("b")], rounds=2)
    assert "".join(turns) == "ab" + "ab" + "ba"
    assert [len(seconds) for seconds in times] == [2, 2]


def test_a_ratio_is_of_the_medians() -> None:
    """An outlier on either side changes nothing."""
    report, out = report_of()
    assert report.ratio_of("three ÷ one", [1.0, 1.0, 90.0], [0.1, 3.0, 3.0], AtMost(3)) == 3.0
    assert report.missed == []
    assert "3.00 ×" in out.getvalue()
    assert "at most 3: ok" in out.getvalue()


@pytest.mark.parametrize("bar", [AtMost(2.9), AtLeast(3.1)])
def test_a_bar_that_is_missed_is_named(bar: AtMost | AtLeast) -> None:
    """On either side."""
    report, out = report_of()
    report.ratio_of("three ÷ one", [1.0], [3.0], bar)
    assert report.missed == ["three ÷ one"]
    assert f"{bar}: MISSED" in out.getvalue()


def test_a_curve_shows_multiples_of_the_quickest() -> None:
    """Never a time alone."""
    report, _ = report_of()
    assert report.curve_of("by N", {"10": [2.0], "100": [1.0], "1000": [4.0]}) == {"10": 2.0, "100": 1.0, "1000": 4.0}


@pytest.mark.parametrize(("at_most", "status"), [(1e9, 0), (1e-9, 1)])
def test_the_exit_status_tells_whether_every_bar_was_reached(
    at_most: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name of the comparison stands in the last line."""

    def run(report: Report) -> None:
        report.ratio("nothing ÷ nothing", lambda: None, lambda: None, AtMost(at_most), rounds=3)

    monkeypatch.setattr(bench, "names", lambda: ["made-up"])
    monkeypatch.setattr(bench, "load", lambda name: run)
    assert bench.main([]) == status
    assert ("1 missed: nothing ÷ nothing" in capsys.readouterr().out) == bool(status)


def test_a_benchmark_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names of those that do."""
    with pytest.raises(SystemExit):
        bench.main(["no-such-benchmark"])
    assert "there is no benchmark no-such-benchmark" in capsys.readouterr().err
