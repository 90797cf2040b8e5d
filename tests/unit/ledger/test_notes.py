"""Notes and verifier keys are those of C2SP signed-note and tlog-cosignature, and nothing else is taken for one."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault.signatures import SigningKey, verify_ed25519
from ledger.domain.notes import (
    COSIGNATURE,
    ED25519,
    MOST_SIGNATURES,
    NOTE_BYTES,
    Note,
    NoteError,
    NoteSignature,
    VerifierKey,
    cosignature,
    cosigned_message,
    from_base64,
    parse_note,
    parse_signature_lines,
    parse_verifier_key,
    signed_note,
    to_base64,
    verify_cosignature,
    verify_note,
)

# The example of the specification.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Z"
    "tg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
SEED = SigningKey(bytes(range(32)))
LOG = VerifierKey("example.org/hospital", ED25519, SEED.public_key)
WITNESS_SEED = SigningKey(bytes(range(1, 33)))
WITNESS = VerifierKey("witness.example/w1", COSIGNATURE, WITNESS_SEED.public_key)
TEXT = "example.org/hospital\n3\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\n"


def signed(text: str = TEXT) -> Note:
    """A note that the log has signed."""
    return signed_note(text, LOG, SEED.sign(text.encode()))


def cosigned(timestamp: int, text: str = TEXT) -> NoteSignature:
    """What the witness says of a text."""
    return cosignature(WITNESS, timestamp, WITNESS_SEED.sign(cosigned_message(text, timestamp)))


def test_the_example_of_the_specification_verifies() -> None:
    """Key and note of signed-note are read, verify, and are written again as they were."""
    key, note = parse_verifier_key(EXAMPLE_KEY), parse_note(EXAMPLE_NOTE)

    verify_note(note, key, verify_ed25519)

    assert (key.text, str(note)) == (EXAMPLE_KEY, EXAMPLE_NOTE)


def test_a_key_id_is_the_beginning_of_a_hash_of_name_kind_and_key() -> None:
    """SHA-256(name ‖ newline ‖ type ‖ key), four bytes of it; so one key has two ids for two kinds of signatures."""
    for kind in (ED25519, COSIGNATURE):
        expected = hashlib.sha256(b"a/b\n" + bytes((kind,)) + SEED.public_key).digest()[:4]
        assert VerifierKey("a/b", kind, SEED.public_key).key_id == expected


@given(
    name=st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="+"), min_size=1),
    key=st.binary(min_size=32, max_size=32),
    kind=st.sampled_from([ED25519, COSIGNATURE]),
)
def test_verifier_keys_survive_the_way_out_and_in(name: str, key: bytes, kind: int) -> None:
    """What is handed on is read as what it was."""
    verifier_key = VerifierKey(name, kind, key)

    assert parse_verifier_key(verifier_key.text) == verifier_key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/foo",
        "example.com/foo+530d903a",
        "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/fop+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k\n",
        "example com+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        VerifierKey("a", 2, SEED.public_key).text,
        VerifierKey("a", ED25519, SEED.public_key[:31]).text,
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    """Cut short, mistyped, or of a type that is not supported."""
    with pytest.raises(NoteError):
        parse_verifier_key(text)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "text\n",
        "text\n\n",
        "text\n\n— name AAAAAAA=",
        "text\n\nname AAAAAAA=\n",
        "text\n\n— AAAAAAA=\n",
        "text\n\n— name AAAA\n",
        "text\n\n— name AAAAAA==\n",
        "text\n\n— na me AAAAAAA=\n",
        "text\n\n— name AAAAAAB=\n",
        "text\n\n— name AAAAAAA=\r\n",
        "te\txt\n\n— name AAAAAAA=\n",
        "text\n\n" + "— name AAAAAAA=\n" * (MOST_SIGNATURES + 1),
        "x" * NOTE_BYTES + "\n\n— name AAAAAAA=\n",
    ],
)
def test_what_is_no_note_is_refused(raw: str) -> None:
    """No signatures, a line that is none, stray bits, control characters, or too much of it."""
    with pytest.raises(NoteError):
        parse_note(raw)


def test_a_text_may_have_empty_lines() -> None:
    """The last empty line is what divides text and signatures."""
    note = signed("a\n\nb\n")

    assert parse_note(str(note)) == note


def test_signatures_of_others_are_not_looked_at() -> None:
    """A key with the same name or the same id, but not both, says nothing; neither does its garbage."""
    note = signed()
    others = (
        NoteSignature(LOG.name, b"\x00\x00\x00\x00", b"\x01" * 64),
        NoteSignature("somebody.else", LOG.key_id, b"\x01" * 64),
    )

    verify_note(Note(note.text, (*others, *note.signatures)), LOG, verify_ed25519)
    with pytest.raises(NoteError, match="no signature by"):
        verify_note(Note(note.text, others), LOG, verify_ed25519)


def test_one_bad_signature_by_the_key_spoils_the_note() -> None:
    """A good one beside it does not help: the note was made by somebody who means ill."""
    note = signed()
    bad = NoteSignature(LOG.name, LOG.key_id, b"\x01" * 64)

    with pytest.raises(NoteError, match="does not verify"):
        verify_note(Note(note.text, (*note.signatures, bad)), LOG, verify_ed25519)


@given(st.integers(min_value=0, max_value=len(str(signed()).encode()) * 8 - 1))
def test_no_bit_of_a_note_can_be_changed(bit: int) -> None:
    """It cannot be read, or it does not verify any more."""
    raw = bytearray(str(signed()).encode())
    raw[bit // 8] ^= 1 << bit % 8
    try:
        changed = raw.decode()
    except UnicodeDecodeError:
        return

    with pytest.raises(NoteError):
        verify_note(parse_note(changed), LOG, verify_ed25519)


def test_a_cosignature_says_when() -> None:
    """The last time, of several; and none of them may be bad."""
    note = signed()
    both = Note(note.text, (*note.signatures, cosigned(1700000000), cosigned(1700000005)))

    assert verify_cosignature(both, WITNESS, verify_ed25519) == 1700000005
    spoilt = Note(note.text, (*both.signatures, cosignature(WITNESS, 1700000009, b"\x01" * 64)))
    with pytest.raises(NoteError, match="does not verify"):
        verify_cosignature(spoilt, WITNESS, verify_ed25519)


def test_a_cosignature_is_of_one_text_and_one_time() -> None:
    """With another text, another time or a time out of range it does not verify."""
    good = cosigned(1700000000)
    later = NoteSignature(good.name, good.key_id, (1700000001).to_bytes(8, "big") + good.signature[8:])
    beyond = cosigned(2**63)

    for text, signature in (("other\n", good), (TEXT, later), (TEXT, beyond)):
        with pytest.raises(NoteError):
            verify_cosignature(Note(text, (signature,)), WITNESS, verify_ed25519)


def test_a_log_is_no_witness_and_a_witness_no_log() -> None:
    """A key of the wrong kind is an error, and not a signature that is missing."""
    note = signed()

    with pytest.raises(NoteError, match="a witness's, and not a log's"):
        verify_note(note, WITNESS, verify_ed25519)
    with pytest.raises(NoteError, match="a log's, and not a witness's"):
        verify_cosignature(note, LOG, verify_ed25519)


def test_signature_lines_stand_alone_too() -> None:
    """As a witness answers them."""
    lines = cosigned(1).line + cosigned(2).line

    assert parse_signature_lines(lines) == (cosigned(1), cosigned(2))
    with pytest.raises(NoteError):
        parse_signature_lines("")


@given(st.binary())
def test_base64_has_one_text_for_each_value(value: bytes) -> None:
    """Stray bits, white space and the other alphabet are refused."""
    text = to_base64(value)

    assert from_base64(text) == value
    for other in (text + "\n", " " + text, text + "=", text.replace("=", "") if "=" in text else text + "é"):
        with pytest.raises(NoteError):
            from_base64(other)
