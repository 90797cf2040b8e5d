"""Receipts that were kept elsewhere, read back as evidence of erasures."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api.wiring import Service
from keyvault.errors import UnknownLedgerError
from ledger.domain.ids import parse_ref, parse_uuid
from ledger.domain.receipts import RECEIPT_DOMAIN, canonical_json
from ledger.domain.times import parse_time
from ledger.ports import Lost, LostErasure


class ReceiptError(Exception):
    """A file is no receipt of this service. The message names it."""


def read_receipts(service: Service, folder: Path) -> Sequence[Lost]:
    """What the receipts in a folder (its files ``*.json``, as the API gives them) tell.

    Raises :class:`ReceiptError` for one that the ledger has not signed: nothing is erased on anybody else's word. While
    the vault's keys cannot be used, nobody can tell, and its error says so.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".json" and path.is_file())
    except OSError as error:
        raise ReceiptError(f"cannot look into {folder} ({error.strerror})") from None
    return [_read(service, path) for path in files]


def _read(service: Service, path: Path) -> Lost:
    try:
        content = json.loads(path.read_bytes())
        payload, signature = content["payload"], base64.b64decode(content["signature"], validate=True)
        lost, signed = _lost(payload), RECEIPT_DOMAIN + canonical_json(payload)
    except OSError as error:
        raise ReceiptError(f"cannot read {path} ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ReceiptError(f"{path} is not a receipt; take it out of the folder") from None
    try:
        # Ed25519 signs the same bytes the same way each time.
        genuine = service.vault.sign(lost.ledger_id, signed) == signature
    except UnknownLedgerError:
        genuine = False
    if not genuine:
        raise ReceiptError(f"{path} was not signed by a ledger of this service; take it out of the folder")
    return lost


def _lost(payload: dict[str, Any]) -> Lost:
    erasure_id, ledger_id = parse_uuid(payload["id"]), parse_uuid(payload["ledger_id"])
    ref, requested_at = parse_ref("sub", payload["subject_ref"]), parse_time(payload["requested_at"])
    if erasure_id is None or ledger_id is None or ref is None or requested_at is None:
        raise ValueError("not a receipt")
    commitment = payload["name_commitment"]
    return LostErasure(
        erasure_id=erasure_id,
        ledger_id=ledger_id,
        subject_ref=ref,
        keys=tuple((bytes.fromhex(key_id), None) for key_id in payload["key_ids"]),
        requested_at=requested_at,
        name_commitment=None if commitment is None else base64.b64decode(commitment, validate=True),
    )
