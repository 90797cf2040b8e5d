"""The ledger's errors, grouped by who is at fault: the caller, the state, a dependency, or the data's integrity.

An error never carries personal data: no names, no payload, no value from a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, and where.

    ``pointer``: RFC 6901 pointer into the request. ``index``: which event of the batch, counted from 0.
    ``details``: further members for the client (``expected``, ``actual`` …).
    """

    pointer: str
    message: str
    index: int = 0
    details: Mapping[str, object] = field(default_factory=dict)


class LedgerError(Exception):
    """Anything that the ledger refuses or cannot do."""

    def __init__(self, detail: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)


class CallerError(LedgerError):
    """The request cannot be right, whatever the state."""


class MalformedError(CallerError):
    """Not the format that it claims to be."""


class InvalidError(CallerError):
    """Well-formed, but not a valid request."""


class TooLargeError(CallerError):
    """Above a size limit."""


class NotFoundError(CallerError):
    """No such ledger, event, stream, subject, erasure or key."""


class UnauthenticatedError(CallerError):
    """No valid API key."""


class ForbiddenError(CallerError):
    """A valid API key without the role, or for another ledger."""


class StateError(LedgerError):
    """A request that would be right in another state of the ledger."""


class AlreadyExistsError(StateError):
    """The name is taken."""


class VersionConflictError(StateError):
    """A stream does not have the expected version. Nothing was recorded (I3)."""


class IdConflictError(StateError):
    """An event id is recorded with other content."""


class PartlyRecordedError(StateError):
    """Some ids of the batch are recorded and others are not."""


class SubjectErasedError(StateError):
    """An append for a subject, or for a stream of a subject, that was erased (I8)."""


class SubjectStateError(StateError):
    """A subject is in a state that what is asked for makes no sense in."""


class StreamClosedError(StateError):
    """An append to a stream that has ended."""


class CommandRefusedError(StateError):
    """What a command asks is against the rules of its aggregate, as things stand."""


class CopyRefusedError(StateError):
    """A stream cannot be copied without losing, or giving away, what is hidden in it."""


class LeaseLostError(StateError):
    """Somebody else has taken over what was leased; nothing was changed."""


class BusyError(StateError):
    """The state is changing right now; the same request will be right in a moment."""


class DependencyError(LedgerError):
    """Something outside the ledger is not there."""


class StoreUnavailableError(DependencyError):
    """The ledger database cannot be reached, or did not answer in time."""


class RestoredError(DependencyError):
    """Ledger, key vault or journal came out of an older copy than the others remember. Nothing goes on before they are
    reconciled."""


class IntegrityError(LedgerError):
    """What is stored is not what was recorded (I10)."""


class UnknownFormatError(IntegrityError):
    """The first byte of a stored value names a layout that this version does not know."""
