"""The types of options: names (which can come from standard input), refs, times, moments."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ledger.domain.ids import RefKind, parse_ref
from ledger.domain.names import name_fault
from ledger.domain.query import AsOf, NameOrRef
from ledger.domain.times import FORM, parse_time

FROM_STDIN: Final = "@-"
NAMES_NOTE: Final = (
    "A name that is typed here is kept in the shell's history and shown to everybody who lists the processes of this "
    "machine: give @- to read it from standard input instead, or use the ref."
)
_TAKEN: Final = "audit_ledger_stdin_is_read"

_POSITION_DIGITS: Final = 19

F = TypeVar("F", bound=Callable[..., Any])


def name(text: str) -> str:
    """A name of a subject, an actor or a stream; ``@-`` is replaced by the first line of standard input.

    The complaint does not repeat it: it may have come from standard input.
    """
    if text == FROM_STDIN:
        text = _first_line()
    message = name_fault(text)
    if message is not None:
        raise click.BadParameter(f"the name {message}")
    return text


def _first_line() -> str:
    meta = click.get_current_context().meta
    if meta.get(_TAKEN):
        raise click.BadParameter("only one name can be read from standard input")
    meta[_TAKEN] = True
    try:
        return sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.BadParameter("standard input is not UTF-8") from None


def word(fault_of: Callable[[object], str | None]) -> Callable[[str], str]:
    """A type of text in which a function of the domain finds no fault."""

    def text(given: str) -> str:
        message = fault_of(given)
        if message is not None:
            raise click.BadParameter(message)
        return given

    return text


def subject_ref(text: str) -> bytes:
    """The ref of a subject."""
    return _ref("sub", text)


def stream_ref(text: str) -> bytes:
    """The ref of a stream."""
    return _ref("str", text)


def _ref(kind: RefKind, text: str) -> bytes:
    ref = parse_ref(kind, text)
    if ref is None:
        raise click.BadParameter(f"must be a ref of the form {kind}_ and 32 hexadecimal digits")
    return ref


def time(text: str) -> int:
    """An RFC 3339 time, as microseconds since 1970-01-01 UTC."""
    microseconds = parse_time(text)
    if microseconds is None:
        raise click.BadParameter(FORM)
    return microseconds


def moment(text: str) -> AsOf:
    """A moment of the past: digits are a position, everything else a time."""
    if text.isascii() and text.isdecimal() and len(text) < _POSITION_DIGITS:
        return AsOf(position=int(text))
    return AsOf(time=time(text))


def who_options(option: str, ref: Callable[[str], bytes], what: str) -> Callable[[F], F]:
    """Two options, ``--NAME`` and ``--NAME-ref``, of which at most one may be given."""

    def decorate(command: F) -> F:
        by_ref = click.option(f"--{option}-ref", type=ref, metavar="REF", help="The same by its ref.")
        by_name = click.option(f"--{option}", type=name, metavar="NAME", help=f"{what}.")
        return by_name(by_ref(command))

    return decorate


def parent_option(command: F) -> F:
    """``--parent PID``: the process ends in good order when the one that started it ends."""

    def follow(_context: click.Context, _parameter: click.Parameter, parent: int | None) -> None:
        if parent is not None:
            # Imported here: few commands are given one, and each would start later for what it brings along.
            from api.starting import end_with

            end_with(parent, signal.SIGTERM)

    return click.option(
        "--parent",
        type=int,
        metavar="PID",
        expose_value=False,
        callback=follow,
        help="End when the process that started this one, PID, ends.",
    )(command)


def name_or_ref(option: str, given: str | None, ref: bytes | None) -> NameOrRef | None:
    """What one pair of options says. Raises a usage error when both are given."""
    if given is not None and ref is not None:
        raise click.UsageError(f"give either --{option} or --{option}-ref, not both")
    return NameOrRef(given, ref) if given is not None or ref is not None else None
