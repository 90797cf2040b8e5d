"""Every error has its row, and no answer tells more than it should."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest
from werkzeug.exceptions import BadRequest, ImATeapot, InternalServerError, NotFound

import keyvault.errors
import ledger.errors
from api.problems import ALL_KINDS, KINDS, kind_of, problem_of, problem_response
from ledger.errors import Fault, IntegrityError, StoreUnavailableError, VersionConflictError

CONTRACT = {
    400: {"malformed"},
    401: {"unauthenticated"},
    403: {"forbidden"},
    404: {"not-found"},
    405: {"method-not-allowed"},
    409: {
        "version-conflict",
        "id-conflict",
        "partly-recorded",
        "wrong-state",
        "already-exists",
        "lease-lost",
        "stream-closed",
        "command-refused",
        "copy-refused",
    },
    410: {"subject-erased"},
    413: {"too-large"},
    415: {"unsupported-media-type"},
    422: {"invalid"},
    429: {"slow-down"},
    500: {"internal-error", "integrity-error"},
    503: {"vault-unavailable", "store-unavailable", "not-ready"},
}


def errors_of(module: ModuleType) -> list[type[Exception]]:
    """The error classes that a module defines."""
    classes = [value for _, value in inspect.getmembers(module, inspect.isclass) if issubclass(value, Exception)]
    return [error for error in classes if error.__module__ == module.__name__]


@pytest.mark.parametrize("error", [*errors_of(ledger.errors), *errors_of(keyvault.errors)])
def test_every_error_of_ours_has_a_row_of_its_own(error: type[Exception]) -> None:
    """So that nobody adds one without deciding what clients get to see."""
    assert error in KINDS


def test_the_codes_are_those_of_the_contract() -> None:
    """Status by status."""
    codes: dict[int, set[str]] = {}
    for kind in ALL_KINDS:
        codes.setdefault(kind.status, set()).add(kind.code)

    assert codes == CONTRACT


def test_what_is_unavailable_says_when_to_come_back() -> None:
    """Every 429 and 503 has ``Retry-After``."""
    assert all((kind.retry_after is not None) == (kind.status in (429, 503)) for kind in ALL_KINDS)


def test_a_problem_has_the_members_of_the_rfc() -> None:
    """RFC 9457, and what the code needs in ``errors``."""
    error = VersionConflictError("wrong", [Fault("/expected_version", "differs", details={"expected": 3, "actual": 4})])

    assert problem_of(error) == {
        "type": "urn:audit-ledger:problem:version-conflict",
        "title": "A stream does not have the expected version.",
        "status": 409,
        "detail": "wrong",
        "errors": [{"pointer": "/expected_version", "message": "differs", "expected": 3, "actual": 4}],
    }


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        StoreUnavailableError("secret"),
        IntegrityError("secret", [Fault("", "secret")]),
        InternalServerError("secret"),
        keyvault.errors.ProviderError("secret"),
        keyvault.errors.DamagedKeyError("secret"),
        BadRequest("secret"),
        ImATeapot("secret"),
        NotFound("secret"),
    ],
)
def test_what_went_wrong_inside_is_not_for_clients(error: Exception) -> None:
    """The detail is the title: the rest is in the log."""
    problem = problem_of(error)

    assert "secret" not in str(problem)
    assert problem["detail"] == problem["title"]
    assert problem_response(error).status_code == kind_of(error).status == problem["status"]


def test_a_child_of_an_error_has_its_row() -> None:
    """What a store adds for itself is still a store that cannot be reached."""

    class LostError(StoreUnavailableError):
        pass

    assert kind_of(LostError("x")).code == "store-unavailable"
