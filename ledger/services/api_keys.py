"""API keys: random secrets, of which only a hash is stored."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from uuid import UUID

from ledger.domain.access import AccessRole, ApiKey, LedgerInfo
from ledger.domain.names import ledger_name_fault
from ledger.errors import NotFoundError, UnauthenticatedError
from ledger.services.dependencies import Dependencies

SECRET_BYTES: Final = 32
_TOUCH_EVERY: Final = 60_000_000
"""Microseconds: last-used-at is not written more often, so that reading stays reading."""

_TOKEN: Final = re.compile(r"alk_(?P<id>[0-9a-f]{32})_(?P<secret>[A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new API key with its secret, which is shown this once and stored nowhere."""

    key: ApiKey
    secret: str


def create_api_key(
    deps: Dependencies,
    *,
    name: str,
    principal: str,
    roles: Collection[AccessRole],
    ledger_id: UUID | None,
    expires_at: int | None,
) -> IssuedKey:
    """Make an API key. ``ledger_id`` None: for all ledgers. ``expires_at`` in microseconds; None: never."""
    secret = deps.entropy(SECRET_BYTES)
    key = ApiKey(
        key_id=deps.new_id(),
        name=name,
        principal=principal,
        roles=frozenset(roles),
        ledger_id=ledger_id,
        secret_hash=sha256(secret).digest(),
        created_at=deps.clock(),
        expires_at=expires_at,
        revoked_at=None,
        last_used_at=None,
    )
    deps.store.add_api_key(key)
    text = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    return IssuedKey(key, f"alk_{key.key_id.hex}_{text}")


def authenticate(deps: Dependencies, token: str, ledger_name: str | None = None) -> tuple[ApiKey, LedgerInfo | None]:
    """The API key that this secret is of, and the ledger of this name, if there is one, in one look. Whether the key is
    for that ledger is for the caller to say. Raises ``UnauthenticatedError``, the same for every reason."""
    refusal = UnauthenticatedError("the API key is missing, wrong, expired or revoked")
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise refusal
    secret_hash = sha256(base64.urlsafe_b64decode(match["secret"] + "=")).digest()
    if ledger_name is not None and ledger_name_fault(ledger_name) is not None:
        ledger_name = None
    key, ledger = deps.store.entrance(UUID(hex=match["id"]), ledger_name)
    # SHA-256 is enough for 256 random bits; what must not leak is how much of a guess was right.
    if key is None or not hmac.compare_digest(key.secret_hash, secret_hash):
        raise refusal
    now = deps.clock()
    if not key.usable_at(now):
        raise refusal
    if key.last_used_at is None or now - key.last_used_at >= _TOUCH_EVERY:
        deps.store.touch_api_key(key.key_id, now)
    return key, ledger


def list_api_keys(deps: Dependencies) -> Sequence[ApiKey]:
    """All API keys, revoked ones too, oldest first."""
    return deps.store.api_keys()


def revoke_api_key(deps: Dependencies, key_id: UUID) -> None:
    """Revoke an API key for good, from its next request on. Raises ``NotFoundError``."""
    if not deps.store.revoke_api_key(key_id, deps.clock()):
        raise NotFoundError("there is no API key of this id")
