"""The page on cryptography says what the code does: its tables take real bytes apart, and its recipe opens them."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api import config
from keyvault import cache, envelope, reserve
from keyvault.envelope import DataKey, NameKind, WrapKind
from keyvault.journal import NO_LINES, Journal
from keyvault.keyring import SERVICE, Keyring
from keyvault.providers import awskms, blobs
from keyvault.providers.file import FileProvider
from keyvault.store import FIRST_GENERATION, KeyRow
from ledger.domain import encoding, names
from ledger.domain.events import PARTS, Envelope, Role, SealedEvent
from ledger.services.appending.recording import PlainPart, seal_event
from ledger.services.documents import DocumentKind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "cryptography.md").read_text(encoding="utf-8")
LAYOUTS = [
    "a sealed part",
    "the AAD of a part and of a leaf",
    "the stored parts of an event",
    "a wrap",
    "the AAD of a wrap",
    "a KEK file",
    "the sealed refs of a name",
    "the AAD of sealed refs",
    "a derived document",
    "the AAD of a derived document",
]

LEDGER = UUID("0193a5e0-7c00-7000-8000-00000000000a")
REF = bytes(range(16))
ENVELOPE = Envelope(
    ledger_id=LEDGER,
    event_id=UUID("0193a5e0-7c00-7000-8000-000000000e01"),
    stream_ref=bytes(range(16, 32)),
    category="patient",
    event_type="ERRegistration",
    schema_version=3,
    occurred_at=1_413_976_541_000_000,
    correlation_id=UUID("0193a5e0-7c00-7000-8000-000000000c01"),
    causation_id=UUID("0193a5e0-7c00-7000-8000-000000000c02"),
)
ENVELOPES = [ENVELOPE, replace(ENVELOPE, occurred_at=None, correlation_id=None, causation_id=None)]
WRITER = UUID("0193a5e0-7c00-7000-8000-0000000000aa")
POSITION, VERSION, RECORDED_AT = 17, 4, 1_700_000_000_000_001


@dataclass(frozen=True)
class Row:
    """A row of a table of a layout."""

    size: str
    field: str
    cells: Sequence[str]


def table_under(line: str, skipped: int = 1) -> list[list[str]]:
    """The cells of the first table from a line on, ``skipped`` lines later at the earliest; without its header."""
    lines = PAGE[PAGE.index(line) :].splitlines()[skipped:]
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return rows


def layout(name: str, column: int | None = None) -> list[Row]:
    """The rows of a layout; with ``column`` those that say "yes" there."""
    rows = [Row(cells[0], cells[1].strip("`"), cells[2:]) for cells in table_under(f"**Layout of {name}**")]
    return [row for row in rows if column is None or row.cells[column] == "yes"]


AAD, LEAF = 0, 1


class Reader:
    """Takes bytes apart as the sizes in the page's tables say, and nothing else."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: str, behind: int) -> bytes:
        """The next field. ``behind``: the bytes of the fields behind it, for one that takes the rest."""
        if size == "rest":
            count = len(self.data) - behind
        elif " + n" in size:
            prefix = int(size.removesuffix(" + n"))
            count = int.from_bytes(self._cut(prefix))
        elif " or " in size:
            absent, present = map(int, size.split(" or "))
            count = present if self.data[:1] == b"\x01" else absent
        else:
            count = int(size)
        return self._cut(count)

    def _cut(self, count: int) -> bytes:
        assert 0 <= count <= len(self.data), "the table says more bytes than there are"
        cut, self.data = self.data[:count], self.data[count:]
        return cut


def dissect(rows: Sequence[Row], data: bytes) -> dict[str, Any]:
    """Field → its bytes; "parts" → one such mapping for each of them. Every byte belongs to a field."""
    reader, fields = Reader(data), dict[str, Any]()
    once = [row for row in rows if not row.size.startswith("each ")]
    each = [row for row in rows if row.size.startswith("each ")]
    before_each = rows[: rows.index(each[0])] if each else rows
    for number, row in enumerate(once):
        behind = sum(int(later.size) for later in once[number + 1 :] if later.size.isdecimal())
        fields[row.field] = reader.take(row.size, behind)
        if each and row is before_each[-1]:
            count = int.from_bytes(fields[row.field])
            fields["each"] = [
                {one.field: reader.take(one.size.removeprefix("each "), 0) for one in each} for _ in range(count)
            ]
    assert reader.data == b"", "there are more bytes than the table says"
    return fields


@dataclass(frozen=True)
class Kept:
    """What a folder of KEKs, a vault's row and an event hold."""

    kek_file: bytes
    row: KeyRow
    key: DataKey
    event: SealedEvent


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """One key, and one event with a part under it, one of the ledger's own and one that shreds."""
    provider = FileProvider(tmp_path / "kek")
    provider.create(1)
    keyring = Keyring(provider, cache.UnwrapCache())
    row = keyring.new_key(LEDGER, REF, "care", 1)
    key = keyring.open_key(row)
    own = DataKey.of(bytes(range(32)))
    parts = [
        PlainPart(Role.SUBJECT, key.key_id, key, subject="patient:A", stream="patient-A", data={"age": 85}),
        PlainPart(Role.NONPERSONAL, own.key_id, own, data={"ward": "ER"}),
        PlainPart(Role.SHREDDED, bytes(32), None),
    ]
    return Kept((tmp_path / "kek" / "epoch-1.kek").read_bytes(), row, key, seal_event(ENVELOPE, parts, WRITER))


def roles_of(event: SealedEvent) -> list[tuple[Role, bytes]]:
    return [(part.role, part.key_id) for part in event.parts]


def recipe(tmp_path: Path) -> dict[str, Any]:
    """What the page's Python defines."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.M | re.S)
    imported = set(re.findall(r"^(?:from|import) (\w+)", code, flags=re.M))
    assert imported == {"cryptography", "hashlib", "hmac"}
    file = tmp_path / "recipe.py"
    file.write_text(code)
    return runpy.run_path(str(file))


def test_every_layout_of_the_page_is_taken_apart() -> None:
    """No table of a layout stands there that no test below holds to real bytes."""
    assert re.findall(r"\*\*Layout of (.*?)\*\*", PAGE) == LAYOUTS


def test_a_wrap_and_a_part_open_by_the_recipe(kept: Kept, tmp_path: Path) -> None:
    """From the KEK's file, the vault's row and the event, with general tools alone, to the text."""
    steps = recipe(tmp_path)
    kek = dissect(layout("a KEK file"), kept.kek_file)["kek"]
    aad = envelope.wrap_aad(
        WrapKind.DEK,
        key_id=kept.row.key_id,
        ledger_id=LEDGER,
        subject_ref=REF,
        purpose="care",
        generation=FIRST_GENERATION,
        epoch=1,
    )
    dek = steps["unwrap_dek"](kek, kept.row.wrapped, aad)
    part_aad = encoding.encode_aad(ENVELOPE, roles_of(kept.event), 0)
    plaintext = steps["open_part"](dek, kept.event.parts[0].sealed, part_aad)
    assert json.loads(plaintext) == {"subject": "patient:A", "stream": "patient-A", "data": {"age": 85}}
    assert len(plaintext) % encoding.PADDING_BLOCK == 0


def test_the_recipe_refuses_what_the_service_refuses(kept: Kept, tmp_path: Path) -> None:
    """Another key than the row names, another part's commitment, another layout."""
    steps = recipe(tmp_path)
    kek, dek = bytes(range(32)), bytes(range(32, 64))
    other = envelope.wrap_aad(WrapKind.DEK, key_id=kept.row.key_id, ledger_id=LEDGER, epoch=1)
    with pytest.raises(ValueError, match="another key"):
        steps["unwrap_dek"](kek, envelope.wrap(kek, dek, other), other)
    with pytest.raises(ValueError, match="keeper"):
        steps["unwrap_dek"](kek, b"\x02" + bytes(60), other)
    with pytest.raises(ValueError, match="not sealed"):
        steps["open_part"](dek, kept.event.parts[0].sealed, b"")
    with pytest.raises(ValueError, match="not sealed"):
        steps["open_part"](dek, b"\x02" + envelope.seal_part(dek, b"", b"")[1:], b"")


def test_sealed_part(kept: Kept) -> None:
    """Its fields lie where the table says: the commitment is that of the key from this salt."""
    dek, salt = bytes(range(32)), bytes(range(16))
    found = dissect(layout("a sealed part"), envelope.seal_part(dek, bytes(64), b"", _salt=salt))
    commit = hashlib.sha256(b"audit-ledger v1 commit" + envelope.part_key(dek, salt)).digest()
    assert (found["format"], found["salt"], found["commit"]) == (envelope.FORMAT, salt, commit)
    assert (len(found["ciphertext"]), len(found["tag"])) == (64, envelope.TAG_SIZE)


def optional(value: bytes | None) -> bytes:
    """0x00, or 0x01 and the value."""
    return b"\x00" if value is None else b"\x01" + value


def event_fields(of: Envelope) -> dict[str, bytes]:
    """What stands in the AAD and in the leaf alike."""
    return {
        "format": b"\x01",
        "ledger_id": LEDGER.bytes,
        "event_id": of.event_id.bytes,
        "stream_ref": of.stream_ref,
        "category": b"patient",
        "type": b"ERRegistration",
        "schema_version": (3).to_bytes(4),
        "occurred_at": optional(None if of.occurred_at is None else of.occurred_at.to_bytes(8)),
        "correlation_id": optional(None if of.correlation_id is None else of.correlation_id.bytes),
        "causation_id": optional(None if of.causation_id is None else of.causation_id.bytes),
        "parts": b"\x03",
    }


@pytest.mark.parametrize("of", ENVELOPES)
def test_aad_of_a_part(kept: Kept, of: Envelope) -> None:
    """What the table says is bound by the AAD is in it, and nothing else."""
    parts = [{"role": bytes([role]), "key_id": key_id} for role, key_id in roles_of(kept.event)]
    found = dissect(layout("the AAD of a part and of a leaf", AAD), encoding.encode_aad(of, roles_of(kept.event), 2))
    assert found == {**event_fields(of), "each": parts, "number": b"\x02"}


@pytest.mark.parametrize("of", ENVELOPES)
def test_leaf(kept: Kept, of: Envelope) -> None:
    """What the table says is bound by the leaf is in it, and nothing else."""
    leaf = encoding.encode_leaf(
        of,
        kept.event.parts,
        position=POSITION,
        stream_version=VERSION,
        recorded_at=RECORDED_AT,
        recorded_by=WRITER,
    )
    parts = [
        {"role": bytes([part.role]), "key_id": part.key_id, "sealed_hash": hashlib.sha256(part.sealed).digest()}
        for part in kept.event.parts
    ]
    assert dissect(layout("the AAD of a part and of a leaf", LEAF), leaf) == {
        **event_fields(of),
        "position": POSITION.to_bytes(8),
        "stream_version": VERSION.to_bytes(8),
        "recorded_at": RECORDED_AT.to_bytes(8),
        "recorded_by": WRITER.bytes,
        "each": parts,
    }


def test_stored_parts(kept: Kept) -> None:
    """The column holds what the table says; the part that shreds is empty."""
    found = dissect(layout("the stored parts of an event"), encoding.pack_parts(kept.event.parts))
    assert (found["format"], found["parts"]) == (b"\x01", b"\x03")
    assert [part["sealed"] for part in found["each"]] == [part.sealed for part in kept.event.parts]
    assert found["each"][2] == {"role": b"\x06", "key_id": bytes(32), "sealed": b""}


def test_wrap_and_its_aad() -> None:
    """A wrap and what it is bound to, field by field."""
    kek, nonce = bytes(range(32)), bytes(range(12))
    aad = envelope.wrap_aad(
        WrapKind.DEK, key_id=kek, ledger_id=LEDGER, subject_ref=REF, purpose="care", generation=1, epoch=7
    )
    assert dissect(layout("the AAD of a wrap"), aad) == {
        "format": b"\x01",
        "kind": b"\x01",
        "key_id": kek,
        "ledger_id": LEDGER.bytes,
        "subject_ref": REF,
        "purpose": b"care",
        "generation": (1).to_bytes(4),
        "epoch": (7).to_bytes(4),
    }
    found = dissect(layout("a wrap"), envelope.wrap(kek, bytes(32), aad, _nonce=nonce))
    assert (found["format"], found["nonce"], len(found["ciphertext"])) == (envelope.FORMAT, nonce, 32)


def test_sealed_refs_and_their_aad() -> None:
    """What a name leads to and what that is bound to, field by field."""
    key, digest, nonce = bytes(range(32)), bytes(range(32, 64)), bytes(range(12))
    link_id = envelope.key_id_of(key)
    found = dissect(
        layout("the sealed refs of a name"),
        envelope.seal_refs(key, NameKind.SUBJECT, LEDGER, digest, link_id, REF, _nonce=nonce),
    )
    assert (found["format"], found["nonce"], len(found["ciphertext"])) == (envelope.FORMAT, nonce, len(REF))
    aad = envelope._refs_aad(NameKind.STREAM, LEDGER, digest, link_id)
    assert dissect(layout("the AAD of sealed refs"), aad) == {
        "format": b"\x01",
        "kind": b"\x02",
        "ledger_id": LEDGER.bytes,
        "name_hash": digest,
        "link_id": link_id,
    }
    kinds = numbered(meaning("the AAD of sealed refs", "kind"))
    assert kinds == {kind: kind.name.lower() for kind in NameKind}


def test_kek_file(kept: Kept) -> None:
    """The check bytes are those of the KEK between them and the format."""
    found = dissect(layout("a KEK file"), kept.kek_file)
    assert found["check"] == hashlib.sha256(b"audit-ledger v1 kek file" + found["kek"]).digest()[:8]
    assert (found["format"], len(found["kek"])) == (b"\x01", envelope.KEY_SIZE)


def test_derived_document_and_its_aad() -> None:
    """A document and what it is bound to, field by field."""
    own, key = DataKey.of(bytes(32)), DataKey.of(bytes(range(32)))
    aad = encoding.encode_document_aad(LEDGER, DocumentKind.SNAPSHOT, "state/1", REF, 9, bytes(range(32)), [key.key_id])
    assert dissect(layout("the AAD of a derived document"), aad) == {
        "format": b"\x01",
        "kind": b"\x01",
        "ledger_id": LEDGER.bytes,
        "fold": b"state/1",
        "key": REF,
        "position": (9).to_bytes(8),
        "leaf_hash": bytes(range(32)),
        "keys": (1).to_bytes(4),
        "each": [{"key_id": key.key_id}],
    }
    found = dissect(layout("a derived document"), envelope.seal_document(own, [key], bytes(64), aad, _salt=REF))
    assert (found["format"], found["salt"], len(found["ciphertext"])) == (envelope.FORMAT, REF, 64)


def numbered(text: str) -> dict[int, str]:
    """ "1 subject, 2 actor" → number → word."""
    return {int(number): word for number, word in re.findall(r"(\d+) ([a-zA-Z' ]+[a-zA-Z])", text)}


def meaning(name: str, field: str) -> str:
    """What the last column of a layout says of a field."""
    (row,) = [row for row in layout(name) if row.field == field]
    return row.cells[-1]


def test_the_numbers_of_roles_and_kinds() -> None:
    """They stand in bytes that stay for ever."""
    roles = numbered(meaning("the AAD of a part and of a leaf", "role"))
    assert roles == {
        Role.SUBJECT: "subject",
        Role.ACTOR: "actor",
        Role.FURTHER: "further subject",
        Role.NONPERSONAL: "nonpersonal",
        Role.STREAM_NAME: "stream name",
        Role.SHREDDED: "shredded",
    }
    kinds = numbered(meaning("the AAD of a wrap", "kind"))
    assert kinds == {
        WrapKind.DEK: "DEK",
        WrapKind.LEDGER_DEK: "a ledger's own DEK",
        WrapKind.NAME_KEY: "name key",
        WrapKind.SIGNING_KEY: "signing key",
        WrapKind.LINK_KEY: "link key",
    }
    assert set(kinds) == set(WrapKind)
    assert set(roles) == set(Role)
    documents = numbered(meaning("the AAD of a derived document", "kind"))
    assert documents == {kind: kind.name.lower().replace("_", " ") for kind in DocumentKind}


def test_the_first_bytes_of_wraps() -> None:
    """Each keeper's byte, and no byte twice."""
    rows = {
        bytes.fromhex(cells[0].removeprefix("0x")): cells[1].strip("`") for cells in table_under("| first byte |", 0)
    }
    assert rows == {envelope.FORMAT: "file", blobs.PKCS11: "pkcs11", blobs.AWSKMS: "awskms"}
    assert f"at most {awskms._MOST_BLOB_BYTES} bytes" in PAGE
    assert f"encryption context `{awskms._CONTEXT}`" in PAGE


def test_the_numbers_are_those_of_the_code() -> None:
    """Every limit in the table, and no other."""
    wrapped = envelope.wrap(bytes(32), bytes(envelope.KEY_SIZE), b"")
    assert {cells[0]: int(cells[1]) for cells in table_under("## Numbers")} == {
        "parts of an event": PARTS,
        "purposes of a person, so that one event can name all dead keys": reserve.MOST_PURPOSES,
        "bytes of a name": names.NAME_BYTES,
        "bytes of a category or type": names.WORD_BYTES,
        "padding of a plaintext to multiples of, in bytes": encoding.PADDING_BLOCK,
        "bytes that sealing adds to a padded plaintext": len(envelope.seal_part(bytes(32), b"", b"")),
        "bytes of a wrap of `file` or `pkcs11`": len(wrapped),
        "seconds for which an unwrapped key is remembered": cache.LIFETIME_SECONDS,
        "unwrapped keys that a process remembers": cache.MOST_ENTRIES,
        "days until the worker rotates, where KEKs are not files": config.DEFAULT_ROTATE_DAYS,
        "days that KMS waits before it deletes a key, unless told otherwise (7 to 30)": awskms._DEFAULT_DAYS,
    }
    assert (awskms._DAYS[0], awskms._DAYS[-1]) == (7, 30)


def test_every_label_of_the_code_is_on_the_page() -> None:
    """What keeps one use of a key from passing for another is said, and nothing that is not so."""
    label = re.compile(r"audit-ledger v1 [a-z]+(?: [a-z]+)*")
    sources = [file for package in ("keyvault", "ledger", "api") for file in (ROOT / package).rglob("*.py")]
    in_code = {found for file in sources for found in label.findall(file.read_text(encoding="utf-8"))}
    assert in_code == set(label.findall(PAGE))


def test_what_a_journal_line_signs(tmp_path: Path) -> None:
    """The signature is over the label and the line without it; ``prev`` is the hash of the line before."""
    path, key = tmp_path / "journal", Ed25519PrivateKey.generate()
    for number in (1, 2):
        Journal(path).append("epoch-created", {"epoch": number}, at=number, key=key, after=NO_LINES)
    first, second = path.read_bytes().splitlines()
    content = json.loads(second)
    signature = bytes.fromhex(content.pop("signature"))
    line = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    key.public_key().verify(signature, b"audit-ledger v1 journal\x00" + line)
    assert content == {"n": 2, "at": 2, "kind": "epoch-created", "epoch": 2, "prev": hashlib.sha256(first).hexdigest()}
    assert json.loads(first)["prev"] == "0" * 64
    assert set(content) - {"epoch"} | {"signature"} <= set(re.findall(r"`(\w+)`", PAGE))


def test_the_services_own_key_stands_under_no_ledger() -> None:
    """The wrap of the key that signs the journal is bound to zeros for a ledger."""
    assert meaning("the AAD of a wrap", "ledger_id") == "zeros for the service's own signing key"
    assert SERVICE.bytes == bytes(16)
