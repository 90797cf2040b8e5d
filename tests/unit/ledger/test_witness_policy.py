"""Policy files are read as the specification means them, or not at all."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault.signatures import SigningKey, verify_ed25519
from ledger.domain.notes import (
    COSIGNATURE,
    ED25519,
    Note,
    NoteError,
    VerifierKey,
    cosignature,
    cosigned_message,
    to_base64,
)
from ledger.domain.witness_policy import (
    PolicyError,
    QuorumError,
    WitnessPolicy,
    cosigners,
    parse_policy,
    require_quorum,
    satisfied,
)

TEXT = "log.example/test\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"


def vkey(number: int, kind: int = COSIGNATURE, name: str | None = None) -> str:
    """A key that is always the same for a number."""
    return VerifierKey(name or f"key.example/{number}", kind, bytes([number]) * 32).text


def policy(*lines: str) -> WitnessPolicy:
    """A policy of these lines."""
    return parse_policy("".join(f"{line}\n" for line in lines).encode())


TWO_LEVELS = (
    f"log {vkey(0, ED25519)}",
    "",
    *(f"witness X{number} {vkey(number)}" for number in (1, 2, 3)),
    "group X-witnesses 2 X1 X2 X3",
    *(f"witness Y{number} {vkey(3 + number)} https://y{number}.example/" for number in (1, 2, 3)),
    "group Y-witnesses any Y1 Y2 Y3",
    "group X-and-Y all X-witnesses Y-witnesses",
    "quorum X-and-Y",
)


def test_the_example_of_the_specification_asks_for_two_and_one() -> None:
    """Of every set of witnesses exactly those count that hold two X and one Y."""
    parsed = policy(*TWO_LEVELS)
    names = [witness.name for witness in parsed.witnesses]
    for count in range(len(names) + 1):
        for cosigned in combinations(names, count):
            letters = [name[0] for name in cosigned]
            expected = letters.count("X") >= 2 and letters.count("Y") >= 1
            assert satisfied(parsed, cosigned) == expected, cosigned
    assert parsed.witnesses[3].url == "https://y1.example/"
    assert parsed.witnesses[0].url is None
    assert [log.name for log in parsed.logs] == ["key.example/0"]


def test_no_group_can_be_brought_in_from_outside() -> None:
    """The name of a group is not a witness that has cosigned."""
    assert not satisfied(policy(*TWO_LEVELS), ["X-and-Y", "X-witnesses", "none"])


def test_a_quorum_of_none_asks_for_nothing() -> None:
    """It may stand alone."""
    assert satisfied(policy("quorum none"), ())


def test_blanks_comments_and_octets_that_are_not_text_are_allowed() -> None:
    """Tabs and runs of spaces part items, names are octets, and comments may hold any of them."""
    content = b"# caf\xe9\n \t \n\twitness  w\xff\t " + vkey(1).encode() + b"  \n  # quorum none\nquorum w\xff\n"
    parsed = parse_policy(content)
    assert satisfied(parsed, [parsed.witnesses[0].name])
    assert parsed.witnesses[0].label == "w\\xff"
    kelvin = f"witness K {vkey(1)}\nwitness \u212a {vkey(2)}\nquorum K\n".encode()
    assert not satisfied(parse_policy(kelvin), ["\u212a"])


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        (["quorum none", "quorum none"], 2),
        (["quorum w"], 1),
        (["quorum w", f"witness w {vkey(1)}"], 1),
        ([f"witness none {vkey(1)}"], 1),
        ([f"witness w {vkey(1)}", f"witness w {vkey(2)}"], 2),
        ([f"witness w {vkey(1)}", f"witness v {vkey(1, name='other')}"], 2),
        ([f"log {vkey(1, ED25519)}", f"log {vkey(1, ED25519, 'other')}"], 2),
        ([f"witness w {vkey(1, ED25519)}"], 1),
        ([f"log {vkey(1)}"], 1),
        ([f"witness w {vkey(1)} https://a/ b"], 1),
        (["witness w"], 1),
        (["witness w no-key"], 1),
        (["log"], 1),
        ([f"witness w {vkey(1)}", "group g all none"], 2),
        ([f"witness w {vkey(1)}", "group g 1"], 2),
        ([f"witness w {vkey(1)}", "group g 0 w"], 2),
        ([f"witness w {vkey(1)}", "group g 2 w"], 2),
        ([f"witness w {vkey(1)}", "group g 01 w"], 2),
        ([f"witness w {vkey(1)}", "group g ALL w"], 2),
        ([f"witness w {vkey(1)}", "group g all w w"], 2),
        ([f"witness w {vkey(1)}", "group g all w", "group h all w"], 3),
        ([f"witness w {vkey(1)}", "group g all g"], 2),
        ([f"witness w {vkey(1)}", "group w all w"], 2),
        (["quorum"], 1),
        (["quorum none none"], 1),
        (["Quorum none"], 1),
        (["quorum\u00a0none"], 1),
        (["quorum none\r"], 1),
        (["# \x00"], 1),
        (["# \x7f"], 1),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(lines: list[str], number: int) -> None:
    """Whatever else stands in the file."""
    with pytest.raises(PolicyError, match=rf"^line {number} of the policy"):
        policy(*lines)


def test_a_witness_of_a_type_that_is_not_supported_is_named_as_such() -> None:
    """The policy is as the specification allows: its reader is told what to do with it."""
    key = f"pq.example+0123abcd+{to_base64(bytes((6,)) + bytes(1312))}"
    with pytest.raises(PolicyError, match=r"^line 2 of the policy: .*ML-DSA-44.*leave it out"):
        policy(f"witness w {vkey(1)}", f"witness pq {key}")


@pytest.mark.parametrize("content", [b"", b"# nothing\n", f"witness w {vkey(1)}\n".encode()])
def test_a_policy_without_a_quorum_is_refused(content: bytes) -> None:
    """It would be read as one that asks for nothing."""
    with pytest.raises(PolicyError, match="no quorum line"):
        parse_policy(content)


def test_a_file_that_was_cut_off_is_refused() -> None:
    """The last line has to end, too."""
    with pytest.raises(PolicyError, match="line 2 of the policy does not end"):
        parse_policy(b"# x\nquorum none")


@given(st.binary(max_size=200))
def test_any_octets_are_read_or_refused(content: bytes) -> None:
    """Nothing else comes out of the parser than a policy or its error."""
    try:
        parsed = parse_policy(content)
    except PolicyError as error:
        str(error).encode()
    else:
        assert satisfied(parsed, ())


@given(st.integers(1, 6), st.data())
def test_a_threshold_counts_members(count: int, data: st.DataObject) -> None:
    """k of n, for every k and every set of witnesses."""
    threshold = data.draw(st.integers(1, count))
    names = [f"w{number}" for number in range(count)]
    lines = [f"witness {name} {vkey(number)}" for number, name in enumerate(names)]
    parsed = policy(*lines, f"group g {threshold} {' '.join(names)}", "quorum g")
    cosigned = data.draw(st.sets(st.sampled_from(names)))
    assert satisfied(parsed, cosigned) == (len(cosigned) >= threshold)


def test_cosignatures_are_verified_before_they_count() -> None:
    """Enough good ones satisfy; a false one spoils the note; those of strangers are not looked at."""
    keys = [SigningKey.generate() for _ in range(3)]
    known = [VerifierKey(f"w{number}", COSIGNATURE, key.public_key) for number, key in enumerate(keys)]
    parsed = policy(
        *(f"witness {key.name} {key.text}" for key in known[:2]),
        f"group g 2 {known[0].name} {known[1].name}",
        "quorum g",
    )
    lines = [
        cosignature(key, 1_700_000_000, signer.sign(cosigned_message(TEXT, 1_700_000_000)))
        for key, signer in zip(known, keys, strict=True)
    ]
    require_quorum(parsed, Note(TEXT, tuple(lines)), verify_ed25519)
    assert cosigners(parsed, Note(TEXT, (lines[1], lines[2])), verify_ed25519) == {"w1"}
    with pytest.raises(QuorumError, match="cosigned by w1"):
        require_quorum(parsed, Note(TEXT, (lines[1], lines[2])), verify_ed25519)
    with pytest.raises(NoteError, match="does not verify"):
        require_quorum(parsed, Note(TEXT.replace("0", "1"), tuple(lines)), verify_ed25519)
