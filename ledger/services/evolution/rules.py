"""The rules of a ledger, as its catalogue and policy say them: read when they have changed, ready for use else."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from ledger.domain.catalogue import EventType, Policy, build_catalogue, parse_policy
from ledger.errors import IntegrityError
from ledger.ports import CatalogueMark
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.schemas import CompiledSchema, compile_schema

LEDGERS: Final = 256
"""Ledgers whose rules a process keeps, at most."""


class Rules:
    """The rules of one ledger at one size of its catalogue. Shared by threads."""

    def __init__(self, types: Iterable[EventType]) -> None:
        self.catalogue = build_catalogue(types)
        self._versions = {
            (one.event_type, one.version): one for versions in self.catalogue.types.values() for one in versions
        }
        self._compiled: dict[tuple[str, int, str], CompiledSchema] = {}

    def registered(self, event_type: str, version: int) -> EventType | None:
        """A version of a type."""
        return self._versions.get((event_type, version))

    def data_schema(self, one: EventType) -> CompiledSchema | None:
        """The schema of its data, compiled at its first use."""
        return self._schema(one, "data")

    def nonpersonal_schema(self, one: EventType) -> CompiledSchema | None:
        """The schema of its nonpersonal part, compiled at its first use."""
        return self._schema(one, "nonpersonal")

    def _schema(self, one: EventType, part: str) -> CompiledSchema | None:
        schema = one.schema if part == "data" else one.nonpersonal_schema
        if schema is None:
            return None
        key = (one.event_type, one.version, part)
        compiled = self._compiled.get(key)
        if compiled is None:
            # Two threads may both do it; the results are the same.
            compiled = self._compiled[key] = compile_schema(schema)
        return compiled


class _Cache:
    """The rules of the ledgers that were used last, each with the size of the catalogue that they were made from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[UUID, tuple[int, Rules]] = OrderedDict()

    def get(self, deps: Dependencies, ledger_id: UUID, mark: CatalogueMark) -> Rules:
        with self._lock:
            known = self._known.get(ledger_id)
            if known is not None and known[0] == mark.types:
                self._known.move_to_end(ledger_id)
                return known[1]
        types = deps.catalogues.event_types(ledger_id)
        rules = Rules(types)
        with self._lock:
            self._known[ledger_id] = (len(types), rules)
            self._known.move_to_end(ledger_id)
            while len(self._known) > LEDGERS:
                self._known.popitem(last=False)
        return rules


_EMPTY: Final = Rules(())
_cache: Final = _Cache()


def rules_of(deps: Dependencies, ledger_id: UUID, mark: CatalogueMark | None = None) -> Rules:
    """The rules of a ledger as they stand now: one indexed count, where nothing has changed."""
    mark = mark or deps.catalogues.catalogue_mark(ledger_id)
    return _cache.get(deps, ledger_id, mark) if mark.types else _EMPTY


def policy_of(mark: CatalogueMark) -> Policy:
    """The policy of a ledger. Raises ``IntegrityError`` where it is none: nobody may guess what a ledger insists on."""
    try:
        if mark.policy is not None:
            return parse_policy(mark.policy)
    except ValueError:
        pass
    raise IntegrityError("the policy of the ledger cannot be read; set it anew")
