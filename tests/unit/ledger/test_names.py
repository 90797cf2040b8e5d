"""A name has one spelling and cannot break a log line; words and purposes are plain ASCII."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.names import (
    ledger_name_fault,
    name_fault,
    purpose_fault,
    reference_fault,
    split_stream,
    word_fault,
)


@pytest.mark.parametrize("name", ["A", "patient:A", "Zoë Ångström", "佐藤 一郎", "a" * 256, "é" * 128, "𝄞" * 64, "a b"])
def test_a_name_is_what_people_are_called(name: str) -> None:
    """Any script is fine, up to 256 bytes of UTF-8."""
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "must not be empty"),
        (None, "must be a string"),
        (17, "must be a string"),
        (["A"], "must be a string"),
        (b"A", "must be a string"),
        ("a" * 257, "must be at most 256 bytes of UTF-8"),
        ("é" * 128 + "a", "must be at most 256 bytes of UTF-8"),
        ("𝄞" * 65, "must be at most 256 bytes of UTF-8"),
    ],
)
def test_a_name_has_a_size(name: object, message: str) -> None:
    """Empty names, names above 256 bytes (not characters) and things that are no strings are refused."""
    assert name_fault(name) == message


@pytest.mark.parametrize("space", [" ", "\u00a0", "\u3000", "\u2003", "\u1680", "\u202f"])
def test_a_name_has_no_outer_spaces(space: str) -> None:
    """A space of any script at either end is refused; inside it is fine."""
    for name in (f"{space}A", f"A{space}", space):
        assert name_fault(name) == "must not begin or end with white space"
    assert name_fault(f"A{space}B") is None


@pytest.mark.parametrize(
    "bad", ["\x00", "\n", "\r", "\t", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\ud800"]
)
def test_a_name_has_no_control_characters(bad: str) -> None:
    """What ends lines, steers terminals or cannot be UTF-8 is refused wherever it stands."""
    for name in (f"{bad}A", f"A{bad}B", f"é{bad}", bad):
        assert name_fault(name) == "must not contain control characters, line separators or lone surrogates"


def test_a_name_has_one_spelling() -> None:
    """The decomposed twin of a name (NFD) is refused: it would be a second person, or be changed silently."""
    composed, decomposed = "Zoë", unicodedata.normalize("NFD", "Zoë")
    assert composed != decomposed
    assert name_fault(composed) is None
    assert name_fault(decomposed) == "must be in Unicode normalisation form C (NFC)"
    # The Ångström sign has a canonical twin among the letters.
    assert name_fault("\u212b") == "must be in Unicode normalisation form C (NFC)"


@given(st.text(max_size=80))
def test_a_good_name_survives_storage(name: str) -> None:
    """What is accepted is NFC, printable on one line, and the same after UTF-8; the check itself never fails."""
    if name_fault(name) is None:
        assert 0 < len(name.encode()) <= 256
        assert unicodedata.normalize("NFC", name) == name == name.strip()
        assert len(name.splitlines()) == 1


@pytest.mark.parametrize(
    ("stream", "split"),
    [
        ("patient-A", ("patient", "A")),
        ("patient-A-1-2", ("patient", "A-1-2")),
        ("a_b.C9--", ("a_b.C9", "-")),
        ("patient-Zoë", ("patient", "Zoë")),
        ("patient", None),
        ("patient-", None),
        ("-A", None),
        ("", None),
        ("pat ient-A", None),
        ("pätient-A", None),
        ("c" * 129 + "-A", None),
    ],
)
def test_a_stream_is_split_at_its_first_hyphen(stream: str, split: tuple[str, str] | None) -> None:
    """``category-id``: a category of the restricted set, and something behind the first hyphen."""
    assert split_stream(stream) == split


@pytest.mark.parametrize("word", ["a", "ERRegistration", "a.b_C9", "x" * 128])
def test_words(word: str) -> None:
    """Categories and types stand in clear, so they are of a restricted set."""
    assert word_fault(word) is None


@pytest.mark.parametrize("word", ["", "a-b", "a b", "a\n", "é", "x" * 129, "٣", None, 3, ["a"]])
def test_no_words(word: object) -> None:
    """Anything else is refused, digits of other scripts and a line end too."""
    assert word_fault(word) is not None


def test_purposes() -> None:
    """A purpose is empty or a short word with hyphens; ``actor`` is the ledger's own."""
    for purpose in ("", "medical", "a-b.c_D9", "p" * 64):
        assert purpose_fault(purpose) is None
    refused: list[object] = ["p" * 65, "a b", "é", "a\n", None, 0, [], "actor"]
    for wrong in refused:
        assert purpose_fault(wrong) is not None


def test_ledger_names() -> None:
    """A ledger's name stands in URLs, so it is a DNS label."""
    for name in ("a", "hospital-1", "0", "x" * 63):
        assert ledger_name_fault(name) is None
    for wrong in ("", "-a", "a-", "A", "a_b", "a.b", "a/b", "x" * 64, "a\n", None, 1):
        assert ledger_name_fault(wrong) is not None


def test_references() -> None:
    """An erasure's reference is a case number in ASCII: nobody's name in its own script."""
    for reference in ("case 2026-114", "a/b_c.d", "x" * 128):
        assert reference_fault(reference) is None
    for wrong in ("", "Zoë", "a\n", "a:b", "a@b", "x" * 129, None, 7):
        assert reference_fault(wrong) is not None
