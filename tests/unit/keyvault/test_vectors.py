"""The vault's byte formats never drift: first recomputed from the design with general tools only, then compared with
what the vault's own code makes."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keyvault import envelope
from keyvault.errors import NotAuthenticError

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "keyvault.json").read_text(encoding="utf-8")
)


def unhex(vector: dict[str, Any], *fields: str) -> list[bytes]:
    return [bytes.fromhex(vector[field]) for field in fields]


def test_every_format_has_vectors() -> None:
    """No list is empty, so no test below passes for want of vectors; every kind of wrap is there."""
    assert {"document", "event_id", "key_id", "name_hash", "sealed_part", "sealed_refs", "wrap"} == set(VECTORS)
    assert all(VECTORS.values())
    assert {1, 2, 3, 4, 5} == {vector["kind"] for vector in VECTORS["wrap"]}


@pytest.mark.parametrize("vector", VECTORS["key_id"])
def test_key_id(vector: dict[str, Any]) -> None:
    """A key id is HKDF-Expand of its DEK."""
    dek, key_id = unhex(vector, "dek", "key_id")
    assert key_id == HKDFExpand(SHA256(), 32, b"audit-ledger v1 key id").derive(dek)
    # RFC 5869 §2.3, one block: T(1) = HMAC(PRK, info ‖ 0x01).
    assert key_id == hmac.new(dek, b"audit-ledger v1 key id\x01", hashlib.sha256).digest()
    assert key_id == envelope.key_id_of(dek)
    assert key_id == envelope.DataKey.of(dek).key_id


@pytest.mark.parametrize("vector", VECTORS["sealed_part"])
def test_sealed_part(vector: dict[str, Any]) -> None:
    """A sealed part is format, salt, commitment, ciphertext and tag under its single-use key."""
    dek, salt, plaintext, aad, part_key, sealed = unhex(vector, "dek", "salt", "plaintext", "aad", "part_key", "sealed")
    key = hmac.new(dek, b"audit-ledger v1 part" + salt, hashlib.sha256).digest()
    commit = hashlib.sha256(b"audit-ledger v1 commit" + key).digest()
    assert part_key == key
    assert sealed == b"\x01" + salt + commit + AESGCM(key).encrypt(bytes(12), plaintext, aad)
    assert part_key == envelope.part_key(dek, salt)
    assert sealed == envelope.seal_part(dek, plaintext, aad, _salt=salt)
    assert plaintext == envelope.open_part(dek, sealed, aad)
    assert plaintext == envelope.DataKey.of(dek).open(sealed, aad)


@pytest.mark.parametrize("vector", VECTORS["wrap"])
def test_wrap(vector: dict[str, Any]) -> None:
    """A wrap is bound to everything that says whose key it is, with absent fields zero at full width."""
    key_id, ledger_id, ref, kek, nonce, plaintext, aad, wrapped = unhex(
        vector, "key_id", "ledger_id", "subject_ref", "kek", "nonce", "plaintext", "aad", "wrapped"
    )
    purpose = vector["purpose"].encode()
    assert aad == (
        bytes([1, vector["kind"]])
        + key_id
        + ledger_id
        + ref
        + bytes([len(purpose)])
        + purpose
        + struct.pack(">II", vector["generation"], vector["epoch"])
    )
    assert wrapped == b"\x01" + nonce + AESGCM(kek).encrypt(nonce, plaintext, aad)
    assert aad == envelope.wrap_aad(
        envelope.WrapKind(vector["kind"]),
        key_id=key_id,
        ledger_id=UUID(bytes=ledger_id),
        subject_ref=ref,
        purpose=vector["purpose"],
        generation=vector["generation"],
        epoch=vector["epoch"],
    )
    assert wrapped == envelope.wrap(kek, plaintext, aad, _nonce=nonce)
    assert plaintext == envelope.unwrap(kek, wrapped, aad)


@pytest.mark.parametrize("vector", VECTORS["name_hash"])
def test_name_hash(vector: dict[str, Any]) -> None:
    """A name's hash is keyed, and a subject and a stream of one name have different ones."""
    name_key, expected = unhex(vector, "name_key", "name_hash")
    message = vector["kind"].encode() + b"\x00" + vector["name"].encode()
    assert expected == hmac.new(name_key, message, hashlib.sha256).digest()
    assert expected == envelope.name_hash(name_key, vector["kind"], vector["name"])


@pytest.mark.parametrize("vector", VECTORS["sealed_refs"])
def test_sealed_refs(vector: dict[str, Any]) -> None:
    """What a name leads to opens in its own row of the index, with its own link key, and nowhere else."""
    key, link_id, ledger_id, digest, nonce, refs, aad, index_key, sealed = unhex(
        vector, "link_key", "link_id", "ledger_id", "name_hash", "nonce", "refs", "aad", "index_key", "sealed"
    )
    kind, ledger = envelope.NameKind(vector["kind"]), UUID(bytes=ledger_id)
    assert aad == bytes([1, vector["kind"]]) + ledger_id + digest + link_id
    assert index_key == HKDFExpand(SHA256(), 32, b"audit-ledger v1 name index").derive(key)
    assert sealed == b"\x01" + nonce + AESGCM(index_key).encrypt(nonce, refs, aad)
    assert len(refs) == {1: 16, 2: 32}[vector["kind"]]
    assert sealed == envelope.seal_refs(key, kind, ledger, digest, link_id, refs, _nonce=nonce)
    link = envelope.LinkKey.of(key)
    assert link_id == link.link_id == envelope.key_id_of(key)
    assert refs == link.open(kind, ledger, digest, sealed)
    others = [
        (link, envelope.NameKind(3 - vector["kind"]), ledger, digest),
        (link, kind, UUID(int=1), digest),
        (link, kind, ledger, digest[::-1]),
        (envelope.LinkKey(key, link_id[::-1]), kind, ledger, digest),
        (envelope.LinkKey(key[::-1], link_id), kind, ledger, digest),
    ]
    for other, of, where, whose in others:
        with pytest.raises(NotAuthenticError):
            other.open(of, where, whose, sealed)
    for wrong in (b"", b"\x02" + sealed[1:], sealed[:20], sealed[:-1] + bytes([sealed[-1] ^ 1])):
        with pytest.raises(NotAuthenticError):
            link.open(kind, ledger, digest, wrong)


@pytest.mark.parametrize("vector", VECTORS["event_id"])
def test_derived_event_id(vector: dict[str, Any]) -> None:
    """A derived event id is a UUID version 8 from a keyed hash."""
    name_key, expected = unhex(vector, "name_key", "event_id")
    message = b"event-id\x00" + vector["label"].encode() + b"\x00" + struct.pack(">Q", vector["number"])
    raw = int.from_bytes(hmac.new(name_key, message, hashlib.sha256).digest()[:16])
    raw = raw & ~(0xF << 76) | (0x8 << 76)
    raw = raw & ~(0b11 << 62) | (0b10 << 62)
    assert expected == raw.to_bytes(16)
    derived = envelope.derive_event_id(name_key, vector["label"], vector["number"])
    assert (expected, 8) == (derived.bytes, derived.version)


@pytest.mark.parametrize("vector", VECTORS["document"])
def test_document(vector: dict[str, Any]) -> None:
    """A derived document is sealed under a key from the ledger's key and all subjects' keys in order of their ids."""
    own, salt, plaintext, aad, key, sealed = unhex(
        vector, "ledger_dek", "salt", "plaintext", "aad", "document_key", "sealed"
    )
    deks = [bytes.fromhex(dek) for dek in vector["deks"]]
    extracted = hmac.new(b"audit-ledger v1 derived", own + b"".join(deks), hashlib.sha256).digest()
    # RFC 5869 §2.3, one block.
    assert key == hmac.new(extracted, b"audit-ledger v1 document" + salt + b"\x01", hashlib.sha256).digest()
    assert sealed == b"\x01" + salt + AESGCM(key).encrypt(bytes(12), plaintext, aad)
    ledger_key, keys = envelope.DataKey.of(own), [envelope.DataKey.of(dek) for dek in deks]
    assert sealed == envelope.seal_document(ledger_key, keys, plaintext, aad, _salt=salt)
    assert plaintext == envelope.open_document(ledger_key, keys, sealed, aad)
