"""Who may do what: API keys and their roles. Roles do not include each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class AccessRole(StrEnum):
    """What an API key is for."""

    WRITER = "writer"
    AUDITOR = "auditor"
    PRIVACY = "privacy"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as it is stored; of its secret there is only a hash.

    ``principal`` is the person or service behind it. ``ledger_id`` None: all ledgers. Times in microseconds.
    """

    key_id: UUID
    name: str
    principal: str
    roles: frozenset[AccessRole]
    ledger_id: UUID | None
    secret_hash: bytes
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None

    def usable_at(self, now: int) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class LedgerInfo:
    """One ledger: a tenant's sequence of events."""

    ledger_id: UUID
    name: str
    created_at: int
