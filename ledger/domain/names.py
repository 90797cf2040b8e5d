"""What a name may look like: subjects, streams, categories, types, purposes, ledgers."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

NAME_BYTES: Final = 256
WORD_BYTES: Final = 128

_WORD: Final = re.compile(r"[A-Za-z0-9_.]{1,128}", re.ASCII)
_PURPOSE: Final = re.compile(r"[A-Za-z0-9_.-]{0,64}", re.ASCII)
_LEDGER: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_REFERENCE: Final = re.compile(r"[A-Za-z0-9 \-_/.]{1,128}", re.ASCII)

# Zl and Zp end lines in logs and terminals as Cc does; Cs cannot be encoded as UTF-8.
_FORBIDDEN_IN_NAMES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})

ACTOR_PURPOSE: Final = "actor"
LEDGER_CATEGORY: Final = "ledger"
ACCESS_CATEGORY: Final = "access"
PROCESS_PREFIX: Final = "process."
"""Of the categories in which process managers keep the state of their instances."""

SUBJECT_ERASED: Final = "SubjectErased"
SUBJECT_RESTRICTED: Final = "SubjectRestricted"
SUBJECT_UNRESTRICTED: Final = "SubjectUnrestricted"
SUBJECT_REINSTATED: Final = "SubjectReinstated"
ERASURE_FINAL: Final = "ErasureFinal"
NAME_UNLINKED: Final = "NameUnlinked"
VAULT_RECONCILED: Final = "VaultReconciled"
STREAM_SUPERSEDED: Final = "StreamSuperseded"
PROCESS_REACTED: Final = "ProcessReacted"
TIMER_FIRED: Final = "TimerFired"
COMMAND_REFUSED: Final = "CommandRefused"
PROCESS_TYPES: Final = frozenset({PROCESS_REACTED, TIMER_FIRED, COMMAND_REFUSED})
RESERVED_TYPES: Final = frozenset(
    {
        SUBJECT_ERASED,
        ERASURE_FINAL,
        NAME_UNLINKED,
        SUBJECT_REINSTATED,
        SUBJECT_RESTRICTED,
        SUBJECT_UNRESTRICTED,
        STREAM_SUPERSEDED,
        VAULT_RECONCILED,
        *PROCESS_TYPES,
    }
)


def is_process_category(category: str) -> bool:
    """Whether only process managers write to streams of this category."""
    return category.startswith(PROCESS_PREFIX)


def is_reserved_category(category: str) -> bool:
    """Whether no client writes to streams of this category."""
    return category in (LEDGER_CATEGORY, ACCESS_CATEGORY) or is_process_category(category)


def name_fault(value: object) -> str | None:
    """Say what is wrong with the name of a subject or stream, or None."""
    if not isinstance(value, str):
        return "must be a string"
    if value.isascii() and value.isprintable():
        if not value:
            return "must not be empty"
        if len(value) > NAME_BYTES:
            return f"must be at most {NAME_BYTES} bytes of UTF-8"
        return None if value[0] != " " and value[-1] != " " else "must not begin or end with white space"
    return _unicode_name_fault(value)


def _unicode_name_fault(value: str) -> str | None:
    if not value:
        return "must not be empty"
    if any(unicodedata.category(character) in _FORBIDDEN_IN_NAMES for character in value):
        return "must not contain control characters, line separators or lone surrogates"
    if len(value.encode()) > NAME_BYTES:
        return f"must be at most {NAME_BYTES} bytes of UTF-8"
    if value != value.strip():
        return "must not begin or end with white space"
    # Refused rather than normalised: two spellings of one name would otherwise be two people (or be changed silently).
    if not unicodedata.is_normalized("NFC", value):
        return "must be in Unicode normalisation form C (NFC)"
    return None


def word_fault(value: object) -> str | None:
    """Say what is wrong with a category or an event type, or None."""
    if not isinstance(value, str):
        return "must be a string"
    if _WORD.fullmatch(value) is None:
        return f"must be 1 to {WORD_BYTES} ASCII letters, digits, '_' or '.'"
    return None


def purpose_fault(value: object) -> str | None:
    """Say what is wrong with a purpose that a client gives for data, or None."""
    if not isinstance(value, str):
        return "must be a string"
    if _PURPOSE.fullmatch(value) is None:
        return "must be at most 64 ASCII letters, digits, '_', '.' or '-'"
    if value == ACTOR_PURPOSE:
        return "the purpose 'actor' is reserved for what a person did as an actor"
    return None


def ledger_name_fault(value: object) -> str | None:
    """Say what is wrong with the name of a ledger, or None."""
    if not isinstance(value, str) or _LEDGER.fullmatch(value) is None:
        return "must be 1 to 63 lower-case ASCII letters, digits or hyphens, and begin and end with a letter or digit"
    return None


def reference_fault(value: object) -> str | None:
    """Say what is wrong with the reference of an erasure (a case number), or the reason of a restriction, or None.

    Both outlive erasures: what a sentence about somebody needs, is not allowed in them.
    """
    if not isinstance(value, str) or _REFERENCE.fullmatch(value) is None:
        return "must be 1 to 128 ASCII letters, digits, spaces, '-', '_', '/' or '.'"
    return None


def split_stream(name: str) -> tuple[str, str] | None:
    """Split ``category-id`` at the first hyphen; None when it has not that form."""
    category, hyphen, identifier = name.partition("-")
    if not hyphen or not identifier or word_fault(category) is not None:
        return None
    return category, identifier
