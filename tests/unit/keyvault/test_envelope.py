"""Sealing, wrapping and data keys: what must open, what must not, and what must never be shown."""

from __future__ import annotations

import copy
import pickle
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault import envelope
from keyvault.envelope import DataKey, LinkKey, NameKey, NameKind, WrapKind
from keyvault.errors import KeyVaultError, NotAuthenticError, UnknownFormatError

KEYS = st.binary(min_size=32, max_size=32)
LEDGER = UUID("0193a5e0-7c00-7000-8000-000000000001")
FIELDS = {
    "key_id": b"k" * 32,
    "ledger_id": LEDGER,
    "subject_ref": b"r" * 16,
    "purpose": "p",
    "generation": 1,
    "epoch": 1,
}


@given(KEYS, st.binary(max_size=300), st.binary(max_size=100))
def test_what_is_sealed_opens_again(dek: bytes, plaintext: bytes, aad: bytes) -> None:
    """Sealing and opening are inverse for every key, text and AAD."""
    key = DataKey.of(dek)
    assert plaintext == key.open(key.seal(plaintext, aad), aad)


@given(KEYS, st.binary(max_size=80), st.data())
def test_a_disclosed_key_opens_its_part_and_no_other(dek: bytes, plaintext: bytes, data: st.DataObject) -> None:
    """With the single-use key alone the part opens to what was sealed; another part, an altered one, another AAD or
    another key do not."""
    key = DataKey.of(dek)
    sealed, other = key.seal(plaintext, b"aad"), key.seal(plaintext, b"aad")
    text, part_key = key.disclose(sealed, b"aad")
    assert text == envelope.open_disclosed(part_key, sealed, b"aad") == plaintext
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + bytes([sealed[at] ^ data.draw(st.integers(1, 255))]) + sealed[at + 1 :]
    wrong = [
        (part_key, other, b"aad"),
        (part_key, sealed, b"other"),
        (bytes(32), sealed, b"aad"),
        (dek, sealed, b"aad"),
    ]
    # The salt is how the vault finds the key: whoever has the key does not need it, and the leaf says whether it is so.
    if not 1 <= at <= envelope.SALT_SIZE:
        wrong.append((part_key, changed, b"aad"))
    for given_key, part, aad in wrong:
        with pytest.raises(NotAuthenticError):
            envelope.open_disclosed(given_key, part, aad)


@given(KEYS, st.binary(max_size=80), st.data())
def test_nothing_is_disclosed_of_what_does_not_open(dek: bytes, plaintext: bytes, data: st.DataObject) -> None:
    """Whoever can put a part there cannot have a key made for a salt of their choice."""
    key = DataKey.of(dek)
    sealed = key.seal(plaintext, b"aad")
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + bytes([sealed[at] ^ data.draw(st.integers(1, 255))]) + sealed[at + 1 :]
    for part, aad in ((changed, b"aad"), (sealed, b"other"), (sealed[:at], b"aad")):
        with pytest.raises(NotAuthenticError):
            key.disclose(part, aad)


@given(KEYS, KEYS, st.binary(max_size=100))
def test_what_is_wrapped_unwraps_again(kek: bytes, key: bytes, aad: bytes) -> None:
    """Wrapping and unwrapping are inverse for every KEK, key and AAD."""
    assert key == envelope.unwrap(kek, envelope.wrap(kek, key, aad), aad)


@given(KEYS, st.binary(max_size=80), st.data())
def test_no_changed_byte_of_a_part_opens(dek: bytes, plaintext: bytes, data: st.DataObject) -> None:
    """A part with any one byte changed, cut short, or under another AAD is not authentic."""
    sealed = envelope.seal_part(dek, plaintext, b"aad")
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + bytes([sealed[at] ^ data.draw(st.integers(1, 255))]) + sealed[at + 1 :]
    for wrong, aad in ((changed, b"aad"), (sealed[:at], b"aad"), (sealed, b"other")):
        with pytest.raises(NotAuthenticError):
            envelope.open_part(dek, wrong, aad)


@given(KEYS, st.data())
def test_no_changed_byte_of_a_wrap_opens(kek: bytes, data: st.DataObject) -> None:
    """A wrap with any one byte changed, cut short, or under another AAD is not authentic."""
    wrapped = envelope.wrap(kek, b"d" * 32, b"aad")
    at = data.draw(st.integers(0, len(wrapped) - 1))
    changed = wrapped[:at] + bytes([wrapped[at] ^ data.draw(st.integers(1, 255))]) + wrapped[at + 1 :]
    for wrong, aad in ((changed, b"aad"), (wrapped[:at], b"aad"), (wrapped, b"other")):
        with pytest.raises(NotAuthenticError):
            envelope.unwrap(kek, wrong, aad)


def test_a_part_commits_to_its_key() -> None:
    """The commitment is checked before decrypting: ciphertext that another key authenticates does not open under it."""
    mine, other = b"m" * 32, b"o" * 32
    salt = b"s" * 16
    theirs = envelope.seal_part(other, b"text", b"", _salt=salt)
    my_commit = envelope.seal_part(mine, b"text", b"", _salt=salt)[17:49]
    spliced = theirs[:17] + my_commit + theirs[49:]
    for dek in (mine, other):
        with pytest.raises(NotAuthenticError):
            envelope.open_part(dek, spliced, b"")
    with pytest.raises(NotAuthenticError, match="not made under this key"):
        envelope.open_part(other, spliced, b"")


def test_every_sealing_is_fresh() -> None:
    """One text sealed twice under one key gives two salts and two ciphertexts, and so does wrapping."""
    key = DataKey.of(b"d" * 32)
    first, second = key.seal(b"text", b""), key.seal(b"text", b"")
    assert first[1:17] != second[1:17]
    assert first[49:] != second[49:]
    assert envelope.wrap(b"k" * 32, b"d" * 32, b"") != envelope.wrap(b"k" * 32, b"d" * 32, b"")


@pytest.mark.parametrize("first", [b"", b"\x00", b"\x02", b"\xff"])
def test_an_unknown_first_byte_is_an_unknown_format(first: bytes) -> None:
    """The first byte fixes the layout, and nothing is tried twice."""
    rest = b"\x00" * 100
    with pytest.raises(UnknownFormatError):
        envelope.open_part(b"d" * 32, first + rest[: 100 * bool(first)], b"")
    with pytest.raises(UnknownFormatError):
        envelope.unwrap(b"k" * 32, first + rest[: 100 * bool(first)], b"")


def test_not_authentic_is_the_value_error_of_the_port() -> None:
    """Who knows only the port catches ValueError; who knows the vault catches its own errors."""
    assert issubclass(UnknownFormatError, NotAuthenticError)
    assert issubclass(NotAuthenticError, ValueError)
    assert issubclass(NotAuthenticError, KeyVaultError)


@pytest.mark.parametrize(
    "change",
    [
        {"key_id": b"K" * 32},
        {"ledger_id": UUID(int=7)},
        {"subject_ref": b"R" * 16},
        {"purpose": "q"},
        {"purpose": ""},
        {"generation": 2},
        {"epoch": 2},
    ],
)
def test_a_wrap_is_bound_to_each_field_of_its_row(change: dict[str, object]) -> None:
    """I9: a wrap that is moved to another row, or whose row was edited, does not unwrap."""
    wrapped = envelope.wrap(b"k" * 32, b"d" * 32, envelope.wrap_aad(WrapKind.DEK, **FIELDS))  # type: ignore[arg-type]  # keyword fields of mixed types
    moved = envelope.wrap_aad(WrapKind.DEK, **{**FIELDS, **change})  # type: ignore[arg-type]  # as above
    with pytest.raises(NotAuthenticError):
        envelope.unwrap(b"k" * 32, wrapped, moved)


def test_a_wrap_is_bound_to_its_kind() -> None:
    """A wrapped key of one kind cannot be passed off as one of another."""
    aads = {envelope.wrap_aad(kind, ledger_id=LEDGER, epoch=1) for kind in WrapKind}
    assert len(WrapKind) == len(aads)


def test_fields_of_the_wrong_size_are_refused() -> None:
    """A field of another width could shift the next one: it is a ValueError at the door."""
    wrong: list[dict[str, object]] = [{"key_id": b"k"}, {"subject_ref": b"r" * 17}, {"purpose": "p" * 256}]
    for change in wrong:
        with pytest.raises(ValueError, match="key id has 32 bytes"):
            envelope.wrap_aad(WrapKind.DEK, **{**FIELDS, **change})  # type: ignore[arg-type]  # as above
    for size in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="exactly 32 bytes"):
            envelope.seal_part(b"d" * size, b"", b"")


def test_a_data_key_shows_its_key_id_only() -> None:
    """I5: neither repr nor str shows the key."""
    dek = bytes(range(32))
    for shown in (repr(DataKey.of(dek)), str(DataKey.of(dek)), f"{[DataKey.of(dek)]}"):
        assert repr(envelope.key_id_of(dek)) in shown
        assert repr(dek) not in shown
        assert dek.hex() not in shown


def test_a_data_key_is_not_pickled_or_copied() -> None:
    """A key leaves its process in no cache file, queue or snapshot by accident."""
    key = DataKey.of(b"d" * 32)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(key)


def test_names_hash_apart() -> None:
    """Another key, kind or name gives another hash; where kind ends and name begins is not ambiguous."""
    hashes = [
        envelope.name_hash(key, kind, name)
        for key in (b"1" * 32, b"2" * 32)
        for kind in ("subject", "stream")
        for name in ("a", "b")
    ]
    assert len(set(hashes)) == 8


@given(st.binary(min_size=32, max_size=32), st.lists(st.text(), max_size=3))
def test_a_name_key_hashes_as_the_format_says(key: bytes, names: list[str]) -> None:
    """What is made once for many names changes no hash, whatever was hashed before."""
    name_key = NameKey.of(key)
    for name in names:
        assert name_key.subject_hash(name) == envelope.name_hash(key, "subject", name)
        assert name_key.stream_hash(name) == envelope.name_hash(key, "stream", name)
    assert name_key.event_id("label", 7) == envelope.derive_event_id(key, "label", 7)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_link_key_seals_as_the_format_says(key: bytes, digest: bytes) -> None:
    """What is made once for all names of a subject opens what the key itself seals, and the other way round."""
    link, ledger_id, refs = LinkKey.of(key), UUID(int=7), b"r" * 16
    place = (NameKind.SUBJECT, ledger_id, digest)
    assert link.open(*place, envelope.seal_refs(key, *place, link.link_id, refs)) == refs
    assert envelope.open_refs(key, *place, link.link_id, link.seal(*place, refs)) == refs


def test_what_a_link_key_has_opened_it_knows_for_that_row_alone() -> None:
    """Opened again, the same bytes give the same refs; in another row, or altered, they are not authentic still."""
    key, ledger_id, digest, refs = b"k" * 32, UUID(int=7), b"d" * 32, b"r" * 16
    link = LinkKey.of(key)
    sealed = link.seal(NameKind.SUBJECT, ledger_id, digest, refs)
    for _ in range(2):
        assert link.open(NameKind.SUBJECT, UUID(int=7), digest, sealed) == refs
    wrong = [
        (NameKind.STREAM, ledger_id, digest, sealed),
        (NameKind.SUBJECT, UUID(int=8), digest, sealed),
        (NameKind.SUBJECT, ledger_id, b"e" * 32, sealed),
        (NameKind.SUBJECT, ledger_id, digest, sealed[:-1] + bytes([sealed[-1] ^ 1])),
    ]
    for kind, ledger, row, altered in wrong:
        with pytest.raises(NotAuthenticError):
            link.open(kind, ledger, row, altered)
    assert link.open(NameKind.SUBJECT, ledger_id, digest, sealed) == refs


def test_a_link_key_knows_few_of_the_names_that_it_has_opened() -> None:
    """Of somebody with a thousand streams too, and it opens the others all the same."""
    link, ledger_id = LinkKey.of(b"k" * 32), UUID(int=7)
    digests = [number.to_bytes(32) for number in range(1000)]
    sealed = [link.seal(NameKind.STREAM, ledger_id, digest, digest) for digest in digests]
    for _ in range(2):
        opened = [link.open(NameKind.STREAM, ledger_id, *row) for row in zip(digests, sealed, strict=True)]
        assert opened == digests
    assert len(link._opened) == 16


@pytest.mark.parametrize("key", [NameKey.of(b"n" * 32), LinkKey.of(b"n" * 32)])
def test_keys_of_the_name_index_show_nothing_and_are_not_pickled_or_copied(key: NameKey | LinkKey) -> None:
    """They leave their process by no accident, and no log line has them."""
    assert "nnnn" not in repr(key)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(key)
