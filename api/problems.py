"""Errors as problem documents (RFC 9457): one table from exception to status and code.

A problem never repeats what a request said: details come from our own errors, which hold no personal data, and for
foreign exceptions there is only the title.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final

from flask import Flask, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from api.json_text import json_bytes
from api.logs import LOGGER
from api.readiness import NotReadyError
from keyvault import errors as vault
from ledger import errors as ledger
from ledger.services.proving.publishing import QuorumAwayError

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:audit-ledger:problem:"
RETRY_SECONDS: Final = 5
BUSY_RETRY_SECONDS: Final = 1
SERVER_ERROR: Final = 500

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. ``title`` says what it means, the same for every occurrence."""

    status: int
    code: str
    title: str
    retry_after: int | None = None


class UnsupportedMediaTypeError(ledger.CallerError):
    """The body's media type is not one that the endpoint reads."""


class SlowDownError(ledger.StateError):
    """More requests at a time than are served; a later one will be."""


MALFORMED: Final = Kind(400, "malformed", "The request is not in the format that it claims to be.")
UNAUTHENTICATED: Final = Kind(401, "unauthenticated", "A valid API key is needed.")
FORBIDDEN: Final = Kind(403, "forbidden", "The API key does not have the role that this takes.")
NOT_FOUND: Final = Kind(404, "not-found", "There is nothing here.")
METHOD_NOT_ALLOWED: Final = Kind(405, "method-not-allowed", "This address does not know the method.")
VERSION_CONFLICT: Final = Kind(409, "version-conflict", "A stream does not have the expected version.")
ID_CONFLICT: Final = Kind(409, "id-conflict", "An event id is recorded with other content.")
PARTLY_RECORDED: Final = Kind(409, "partly-recorded", "Some events of the batch are recorded, others are not.")
ALREADY_EXISTS: Final = Kind(409, "already-exists", "There is one already.")
WRONG_STATE: Final = Kind(409, "wrong-state", "The subject is in a state that does not allow this.")
STREAM_CLOSED: Final = Kind(409, "stream-closed", "The stream has ended.")
COMMAND_REFUSED: Final = Kind(409, "command-refused", "A rule says no.")
COPY_REFUSED: Final = Kind(409, "copy-refused", "The stream cannot be copied.")
LEASE_LOST: Final = Kind(409, "lease-lost", "Somebody else has leased it by now.")
SUBJECT_ERASED: Final = Kind(410, "subject-erased", "The subject was erased.")
TOO_LARGE: Final = Kind(413, "too-large", "The request is above a size limit.")
UNSUPPORTED: Final = Kind(415, "unsupported-media-type", "The body has a media type that is not read here.")
INVALID: Final = Kind(422, "invalid", "The request is well-formed, but not valid.")
SLOW_DOWN: Final = Kind(429, "slow-down", "There are too many such requests right now.", BUSY_RETRY_SECONDS)
INTERNAL: Final = Kind(500, "internal-error", "Something went wrong that should not have.")
INTEGRITY: Final = Kind(500, "integrity-error", "What is stored is not what was recorded.")
STORE_UNAVAILABLE: Final = Kind(503, "store-unavailable", "The ledger database cannot be reached.", RETRY_SECONDS)
VAULT_UNAVAILABLE: Final = Kind(503, "vault-unavailable", "The key vault cannot be reached.", RETRY_SECONDS)
NOT_READY: Final = Kind(503, "not-ready", "The service cannot do this right now.", RETRY_SECONDS)
BUSY: Final = Kind(503, "not-ready", NOT_READY.title, BUSY_RETRY_SECONDS)

KINDS: Final[dict[type[Exception], Kind]] = {
    ledger.MalformedError: MALFORMED,
    ledger.InvalidError: INVALID,
    ledger.TooLargeError: TOO_LARGE,
    ledger.NotFoundError: NOT_FOUND,
    ledger.UnauthenticatedError: UNAUTHENTICATED,
    ledger.ForbiddenError: FORBIDDEN,
    UnsupportedMediaTypeError: UNSUPPORTED,
    ledger.CallerError: INVALID,
    ledger.AlreadyExistsError: ALREADY_EXISTS,
    ledger.VersionConflictError: VERSION_CONFLICT,
    ledger.IdConflictError: ID_CONFLICT,
    ledger.PartlyRecordedError: PARTLY_RECORDED,
    ledger.SubjectStateError: WRONG_STATE,
    ledger.StreamClosedError: STREAM_CLOSED,
    ledger.CommandRefusedError: COMMAND_REFUSED,
    ledger.CopyRefusedError: COPY_REFUSED,
    ledger.LeaseLostError: LEASE_LOST,
    ledger.SubjectErasedError: SUBJECT_ERASED,
    ledger.BusyError: BUSY,
    ledger.StateError: BUSY,
    ledger.StoreUnavailableError: STORE_UNAVAILABLE,
    ledger.RestoredError: NOT_READY,
    QuorumAwayError: NOT_READY,
    ledger.DependencyError: STORE_UNAVAILABLE,
    ledger.IntegrityError: INTEGRITY,
    ledger.UnknownFormatError: INTEGRITY,
    ledger.LedgerError: INTERNAL,
    NotReadyError: NOT_READY,
    SlowDownError: SLOW_DOWN,
    vault.UnknownSubjectError: NOT_FOUND,
    vault.UnknownErasureError: NOT_FOUND,
    vault.UnknownPurposeError: NOT_FOUND,
    vault.NotErasedError: WRONG_STATE,
    vault.KeysLiveError: WRONG_STATE,
    vault.UnlinkedError: SUBJECT_ERASED,
    vault.BusyError: BUSY,
    # No request comes upon this one so far: epochs are the command line's and the worker's.
    vault.EpochRefusedError: BUSY,
    # The ledger is there and its secrets are not: a vault that was restored too old, or another's.
    vault.UnknownLedgerError: VAULT_UNAVAILABLE,
    vault.VaultUnavailableError: VAULT_UNAVAILABLE,
    vault.ConnectionLostError: VAULT_UNAVAILABLE,
    vault.NotInitialisedError: VAULT_UNAVAILABLE,
    vault.ProviderError: VAULT_UNAVAILABLE,
    vault.InsecureFolderError: VAULT_UNAVAILABLE,
    vault.JournalError: VAULT_UNAVAILABLE,
    vault.AnotherVaultError: VAULT_UNAVAILABLE,
    vault.NotAuthenticError: INTEGRITY,
    vault.UnknownFormatError: INTEGRITY,
    vault.DamagedKeyError: INTEGRITY,
    # What is left is the vault's database refusing a statement: migrations or grants that are not in place.
    vault.KeyVaultError: VAULT_UNAVAILABLE,
}
"""Every error of ours. An error that has no row of its own has that of its nearest ancestor."""

HTTP_KINDS: Final = {
    kind.status: kind for kind in (MALFORMED, NOT_FOUND, METHOD_NOT_ALLOWED, TOO_LARGE, UNSUPPORTED, INTERNAL)
}
"""What the web framework refuses by itself."""

ALL_KINDS: Final = (*dict.fromkeys([*KINDS.values(), *HTTP_KINDS.values()]),)


def kind_of(error: Exception) -> Kind:
    """The kind of problem that an exception is."""
    if isinstance(error, HTTPException):
        code = error.code or SERVER_ERROR
        return HTTP_KINDS.get(code, MALFORMED if code < SERVER_ERROR else INTERNAL)
    return next((KINDS[ancestor] for ancestor in type(error).__mro__ if ancestor in KINDS), INTERNAL)


def problem_of(error: Exception) -> dict[str, Any]:
    """The problem document of an exception, as JSON members."""
    kind = kind_of(error)
    problem: dict[str, Any] = {
        "type": TYPE_PREFIX + kind.code,
        "title": kind.title,
        "status": kind.status,
        "detail": _detail(error, kind),
    }
    if isinstance(error, ledger.LedgerError) and error.faults and kind.status < SERVER_ERROR:
        problem["errors"] = [
            {"pointer": fault.pointer, "message": fault.message, **fault.details} for fault in error.faults
        ]
    if isinstance(error, NotReadyError):
        problem["dependencies"] = error.states
        problem["errors"] = [
            {"pointer": "", "message": state, "dependency": name}
            for name, state in error.states.items()
            if state != "ok"
        ]
    return problem


def _detail(error: Exception, kind: Kind) -> str:
    # What is wrong inside is for the log and the operator, not for whoever asks.
    if kind.status < SERVER_ERROR or kind is BUSY:
        if isinstance(error, ledger.LedgerError):
            return error.detail
        if isinstance(error, vault.UnknownSubjectError):
            return "there is no such subject in this ledger"
        if isinstance(error, vault.KeyVaultError):
            return str(error)
    return kind.title


def problem_response(error: Exception) -> Response:
    """The answer to a request that ended in this exception."""
    kind = kind_of(error)
    response = Response(json_bytes(problem_of(error)), kind.status, mimetype=MEDIA_TYPE)
    if kind.retry_after is not None:
        response.headers["Retry-After"] = str(kind.retry_after)
    if kind is UNAUTHENTICATED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def register_problems(app: Flask) -> None:
    """Answer every exception with its problem document."""
    app.register_error_handler(HTTPException, _answer)
    app.register_error_handler(Exception, _answer)


def _answer(error: Exception) -> Response:
    if kind_of(error).status >= SERVER_ERROR:
        log_failure(error)
    return problem_response(error)


def log_failure(error: Exception) -> None:
    """Log an exception that is the service's own fault, or that of something it depends on."""
    expected = kind_of(error) not in (INTERNAL, INTEGRITY)
    _log.log(
        logging.WARNING if expected else logging.ERROR,
        "dependency-failed" if expected else "request-failed",
        exc_info=(type(error), error, error.__traceback__),
    )
