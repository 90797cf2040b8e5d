"""Raw keys, as only tests get to see them: opened from the vault's rows, looked for in bytes, tried on wraps."""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyvault import envelope, tables
from keyvault.envelope import WrapKind
from keyvault.errors import NotAuthenticError, ProviderError
from keyvault.providers.file import FileProvider

_WRAP_SIZE: Final = 1 + envelope.NONCE_SIZE + envelope.KEY_SIZE + envelope.TAG_SIZE


def aad_of_key(row: Any, epoch: int | None = None) -> bytes:
    """What the wrap of a row of ``subject_keys`` is bound to; ``epoch``: were it wrapped under another."""
    return envelope.wrap_aad(
        WrapKind.DEK,
        key_id=row.key_id,
        ledger_id=row.ledger_id,
        subject_ref=row.subject_ref,
        purpose=row.purpose,
        generation=row.generation,
        epoch=row.epoch if epoch is None else epoch,
    )


def raw_keks(folder: Path) -> dict[str, bytes]:
    """Every KEK that exists, by the name of its file."""
    return {file.name: file.read_bytes()[1 : 1 + envelope.KEY_SIZE] for file in folder.iterdir()}


def raw_keys(engine: sa.Engine, provider: FileProvider) -> dict[str, bytes]:
    """All that the vault keeps wrapped, opened: the people's keys and link keys, and the secrets of the ledgers and of
    the service."""
    found = {}
    with engine.connect() as connection:
        for row in connection.execute(sa.select(tables.subject_keys)):
            dek = provider.unwrap(row.epoch, row.wrapped_dek, aad_of_key(row))
            found[f"key {row.key_id.hex()[:8]}"] = dek
        for row in connection.execute(sa.select(tables.ledger_secrets)):
            aad = envelope.wrap_aad(
                WrapKind(row.kind),
                key_id=row.key_id or envelope.ABSENT_KEY_ID,
                ledger_id=row.ledger_id,
                epoch=row.epoch,
            )
            found[f"{WrapKind(row.kind).name} of {row.ledger_id}"] = provider.unwrap(row.epoch, row.wrapped, aad)
        for row in connection.execute(sa.select(tables.link_keys)):
            aad = envelope.wrap_aad(WrapKind.LINK_KEY, key_id=row.link_id, ledger_id=row.ledger_id, epoch=row.epoch)
            found[f"link {row.link_id.hex()[:8]}"] = provider.unwrap(row.epoch, row.wrapped, aad)
    return found


def opened_by_any_kek(row: Any, folder: Path) -> set[bytes]:
    """What a row of ``subject_keys`` opens to, with every KEK that exists and with the provider, as of any epoch."""
    provider = FileProvider(folder)
    found = set()
    for epoch in range(1, 10):
        aad = aad_of_key(row, epoch)
        for kek in raw_keks(folder).values():
            try:
                found.add(envelope.unwrap(kek, row.wrapped_dek, aad))
            except NotAuthenticError:
                continue
        try:
            found.add(provider.unwrap(epoch, row.wrapped_dek, aad))
        except (NotAuthenticError, ProviderError):
            continue
    return found


def keys_opened_in(engine: sa.Engine, folder: Path) -> set[bytes]:
    """All that opens of what stands wrapped in any column of any table of the vault: with every KEK that exists, and
    however it may be bound to what its row says."""
    keks = [AESGCM(kek) for kek in raw_keks(folder).values()]
    found = set()
    with engine.connect() as connection:
        for table in tables.metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                wraps = [value for value in row if isinstance(value, bytes) and len(value) == _WRAP_SIZE]
                for kek, wrapped, aad in itertools.product(keks, wraps, _bindings_of(row) if wraps else ()):
                    nonce, sealed = wrapped[1 : 1 + envelope.NONCE_SIZE], wrapped[1 + envelope.NONCE_SIZE :]
                    with contextlib.suppress(InvalidTag):
                        found.add(kek.decrypt(nonce, sealed, aad))
    return found


def _bindings_of(row: Any) -> list[bytes]:
    """Every AAD that can be made of what a row says."""
    ids = {value for value in row if isinstance(value, bytes) and len(value) == envelope.KEY_ID_SIZE}
    refs = {value for value in row if isinstance(value, bytes) and len(value) == envelope.REF_SIZE}
    values = row._mapping
    return [
        envelope.wrap_aad(
            kind,
            key_id=key_id,
            ledger_id=values["ledger_id"],
            subject_ref=ref,
            purpose=purpose,
            generation=generation,
            epoch=epoch,
        )
        for kind, key_id, ref, purpose, generation, epoch in itertools.product(
            WrapKind,
            ids | {envelope.ABSENT_KEY_ID},
            refs | {envelope.ABSENT_REF},
            {"", values.get("purpose", "")},
            {0, values.get("generation", 0)},
            range(1, 10),
        )
    ]


def forms_of(secret: bytes) -> set[bytes]:
    """How bytes could stand in a file: raw, in hexadecimal, in base64 (also amid more), as Python shows them.

    Raw and in hexadecimal each half counts, since the end of a page can come in between.
    """
    forms = {repr(secret)[2:-1].encode()}
    middle = len(secret) // 2
    for half in (secret[:middle], secret[middle:]):
        forms |= {half, half.hex().encode(), half.hex().upper().encode()}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        # Without the characters that also hold bits of what stands before or behind.
        whole = encoded[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        forms |= {whole, whole.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


def places_of(secrets: Iterable[bytes], contents: Mapping[str, bytes]) -> list[str]:
    """The names of those contents in which any of the secrets stands, in any form."""
    needles = {form for secret in secrets for form in forms_of(secret)}
    return sorted(name for name, content in contents.items() if any(needle in content for needle in needles))
