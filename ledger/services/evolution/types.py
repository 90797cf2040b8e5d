"""The catalogue of a ledger: register versions of event types, list them, and set the policy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ledger.domain.catalogue import (
    DEFINITION_BYTES,
    MOST_UNLINK_DAYS,
    NEVER,
    PUBLIC_CHECKPOINTS,
    STRICT_TYPES,
    UNLINK_AFTER,
    EventType,
    Policy,
    TypeDraft,
    definition_of,
    draft_faults,
    parse_policy,
    policy_json,
    same_definition,
)
from ledger.errors import AlreadyExistsError, Fault, InvalidError, NotFoundError, TooLargeError
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.rules import policy_of, rules_of
from ledger.services.evolution.schemas import schema_faults


@dataclass(frozen=True, slots=True)
class Registration:
    """The answer to a registration; ``duplicate``: it had been registered before, as the same."""

    event_type: EventType
    duplicate: bool


def register_type(deps: Dependencies, ledger_id: UUID, draft: TypeDraft, registered_by: UUID) -> Registration:
    """Register a version of an event type. The same again changes nothing.

    Raises ``InvalidError``, ``TooLargeError``, and ``AlreadyExistsError`` where the version is registered with other
    content: a version says one thing for good.
    """
    known = rules_of(deps, ledger_id).catalogue.types.get(draft.event_type, ())
    registered = _repeat(known, draft)
    if registered is not None:
        return registered
    _check(deps, draft, known)
    event_type = EventType(
        draft.event_type,
        draft.version,
        draft.schema,
        draft.nonpersonal_schema,
        draft.upcast,
        draft.closes_stream,
        deps.clock(),
        registered_by,
    )
    if deps.catalogues.add_event_type(ledger_id, event_type):
        return Registration(event_type, duplicate=False)
    # Somebody else has just registered this version: what they said stands.
    versions = [one for one in deps.catalogues.event_types(ledger_id) if one.event_type == draft.event_type]
    return _repeat(versions, draft) or Registration(event_type, duplicate=False)


def _check(deps: Dependencies, draft: TypeDraft, known: Sequence[EventType]) -> None:
    faults = draft_faults(draft, known, deps.upcasters)
    if not faults:
        # Before anything walks through it: the schema is bounded in depth by now, and has to be in size.
        if len(json.dumps(definition_of(draft))) > DEFINITION_BYTES:
            fault = Fault("", f"schemas and steps together must be at most {DEFINITION_BYTES // 1024} KiB of JSON")
            raise TooLargeError("the version is too large", [fault])
        for name, schema in (("schema", draft.schema), ("nonpersonal_schema", draft.nonpersonal_schema)):
            faults += schema_faults(schema, f"/{name}") if schema is not None else []
    if faults:
        raise InvalidError("the version of the event type is not valid; nothing was registered", faults)


def _repeat(known: Sequence[EventType], draft: TypeDraft) -> Registration | None:
    same = next((one for one in known if one.version == draft.version), None)
    if same is None:
        return None
    if same_definition(same, draft):
        return Registration(same, duplicate=True)
    fault = Fault("/version", f"is registered with other content; the next version is {known[-1].version + 1}")
    raise AlreadyExistsError("the version of the event type is registered with other content", [fault])


def list_types(deps: Dependencies, ledger_id: UUID) -> Mapping[str, Sequence[EventType]]:
    """The versions of every registered type, in order of types and versions."""
    return rules_of(deps, ledger_id).catalogue.types


def get_type(deps: Dependencies, ledger_id: UUID, event_type: str) -> Sequence[EventType]:
    """The versions of one type, in order. Raises ``NotFoundError``."""
    versions = list_types(deps, ledger_id).get(event_type)
    if not versions:
        raise NotFoundError("no version of this event type is registered in this ledger")
    return versions


def get_policy(deps: Dependencies, ledger_id: UUID) -> Policy:
    """What the ledger insists on."""
    return policy_of(deps.catalogues.catalogue_mark(ledger_id))


def set_policy(deps: Dependencies, ledger_id: UUID, raw: Mapping[str, Any]) -> Policy:
    """Replace the policy. Raises ``InvalidError``."""
    try:
        policy = parse_policy(raw)
    except ValueError:
        members = (
            f"'{STRICT_TYPES}' and '{PUBLIC_CHECKPOINTS}': true or false, '{UNLINK_AFTER}': 0 to {MOST_UNLINK_DAYS} "
            f'days or "{NEVER}"'
        )
        fault = Fault("", f"must be an object with {members}, and nothing else")
        raise InvalidError("the policy is not valid; nothing was changed", [fault]) from None
    deps.catalogues.set_policy(ledger_id, policy_json(policy))
    return policy
