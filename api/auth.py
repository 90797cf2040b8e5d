"""Who asks, and what that key may do: 401 before 403 before 404 before anything of the body is looked at."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import wraps
from typing import Any, Final, TypeVar, cast

from flask import g, request

from api.context import open_service
from ledger.domain.access import AccessRole, ApiKey, LedgerInfo
from ledger.errors import ForbiddenError, UnauthenticatedError
from ledger.services.api_keys import authenticate
from ledger.services.evolution.types import get_policy
from ledger.services.ledgers import unknown_ledger

View = TypeVar("View", bound=Callable[..., Any])

_SCHEME: Final = "bearer"
_LONGEST_TOKEN: Final = 200


def allowed(*roles: AccessRole, or_public: bool = False) -> Callable[[View], View]:
    """Let a view be called with a key of one of these roles only; without roles: with any valid key. ``or_public``: by
    everybody, in a ledger whose policy makes its checkpoints public.

    A view whose address names a ledger gets that ledger as ``ledger`` instead of its name.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **values: Any) -> Any:
            g.needed_roles = roles
            public = _find_public(values["ledger"]) if or_public else None
            if public is not None:
                return view(*args, **{**values, "ledger": public})
            key, ledger = _authenticate(values.get("ledger"))
            if roles and not key.roles.intersection(roles):
                raise ForbiddenError(f"this takes a key with the role {' or '.join(roles)}")
            if "ledger" in values:
                values["ledger"] = _enter(key, ledger)
            return view(*args, **values)

        documented = deepcopy(getattr(guarded, "_apidoc", {}))
        manual = documented.setdefault("manual_doc", {})
        manual["security"] = [{_SCHEME: []}, {}] if or_public else [{_SCHEME: []}]
        manual["x-roles"] = [role.value for role in roles]
        guarded._apidoc = documented  # type: ignore[attr-defined]  # where flask-smorest keeps it
        return cast(View, guarded)

    return decorate


def current_key() -> ApiKey:
    """The API key of the current request, which a view behind ``allowed`` always has."""
    key: ApiKey = g.api_key
    return key


def may_see(key: ApiKey, ledger: LedgerInfo) -> bool:
    """Whether a key is for this ledger."""
    return key.ledger_id is None or key.ledger_id == ledger.ledger_id


def _authenticate(ledger_name: str | None) -> tuple[ApiKey, LedgerInfo | None]:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != _SCHEME or not token or len(token) > _LONGEST_TOKEN:
        raise UnauthenticatedError("this takes an API key: Authorization: Bearer <api key>")
    key, ledger = authenticate(open_service().deps, token.strip(" "), ledger_name)
    g.api_key = key
    return key, ledger


def _find_public(name: str) -> LedgerInfo | None:
    """The ledger of this name, if there is one that publishes its checkpoints."""
    deps = open_service().deps
    ledger = deps.store.ledger(name)
    return ledger if ledger is not None and get_policy(deps, ledger.ledger_id).public_checkpoints else None


def _enter(key: ApiKey, ledger: LedgerInfo | None) -> LedgerInfo:
    """The ledger that was found, if the key is for it. A key of another ledger does not learn whether there is one."""
    if ledger is None and key.ledger_id is None:
        raise unknown_ledger()
    if ledger is None or not may_see(key, ledger):
        raise ForbiddenError("this key is for another ledger")
    return ledger
