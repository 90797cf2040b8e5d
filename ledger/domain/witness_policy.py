"""Whose word it takes that a checkpoint is the only one: policy files of https://c2sp.org/tlog-policy.

A policy names logs and witnesses by their public keys, groups of witnesses, and the quorum: which of them must have
cosigned a checkpoint before it counts. What the specification does not allow is refused, with the number of the line:
a policy that is read in another way than it was meant asks for fewer witnesses than somebody relies on.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from ledger.domain.notes import (
    COSIGNATURE,
    ED25519,
    Note,
    NoteError,
    VerifierKey,
    Verify,
    parse_verifier_key,
    verify_cosignature,
)
from ledger.errors import IntegrityError, MalformedError

NO_QUORUM: Final = "none"
"""The predefined name of a quorum that everything satisfies."""

_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_BLANKS: Final = re.compile(r"[ \t]+")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
_ML_DSA: Final = re.compile(r"[^+]+\+[0-9a-f]{8}\+B[g-v]", re.ASCII)
"""How a verifier key of type 6 begins: name, key id, and base64 of the type."""

_URL: Final = 1
"""How many items may stand behind those that must: the URL."""


class PolicyError(MalformedError):
    """A policy file cannot be meant. The message names the line."""


class QuorumError(IntegrityError):
    """Fewer witnesses have cosigned a checkpoint than the policy asks for."""


@dataclass(frozen=True, slots=True)
class Group:
    """Witnesses and groups, by their names. It counts as a witness that has cosigned when ``threshold`` members do."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyKey:
    """A log or a witness. ``name``: within the policy file; of a log, that of its key."""

    name: str
    key: VerifierKey
    url: str | None

    @property
    def label(self) -> str:
        """The name as it can be printed."""
        return shown(self.name)


@dataclass(frozen=True, slots=True)
class WitnessPolicy:
    """A policy. ``groups`` stand in the order of the file, so that each comes behind its members; ``quorum``: the name
    of a witness or a group, or ``NO_QUORUM``."""

    logs: tuple[PolicyKey, ...]
    witnesses: tuple[PolicyKey, ...]
    groups: tuple[Group, ...]
    quorum: str


def shown(name: str) -> str:
    """A name of the policy file as it can be printed: octets that are not UTF-8 are written as ``\\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def satisfied(policy: WitnessPolicy, cosigned: Collection[str]) -> bool:
    """Whether the quorum is reached when the witnesses of these names have cosigned. Other names count for nothing."""
    having = {witness.name for witness in policy.witnesses}.intersection(cosigned)
    for group in policy.groups:
        if sum(member in having for member in group.members) >= group.threshold:
            having.add(group.name)
    return policy.quorum == NO_QUORUM or policy.quorum in having


def cosigners(policy: WitnessPolicy, note: Note, verify: Verify) -> frozenset[str]:
    """The names of the witnesses that have cosigned a note. A note with a cosignature that says to be by one of them
    and is not is no good at all: ``NoteError``."""
    claimed = [one for one in policy.witnesses if any(signature.is_by(one.key) for signature in note.signatures)]
    for witness in claimed:
        verify_cosignature(note, witness.key, verify)
    return frozenset(witness.name for witness in claimed)


def require_quorum(policy: WitnessPolicy, note: Note, verify: Verify) -> None:
    """Raise ``QuorumError`` unless enough witnesses have cosigned; ``NoteError`` for a cosignature that is false."""
    having = cosigners(policy, note, verify)
    if not satisfied(policy, having):
        by = ", ".join(map(shown, sorted(having))) or "none of its witnesses"
        asked = shown(policy.quorum)
        raise QuorumError(f"the policy asks for the quorum {asked}, and the checkpoint is cosigned by {by}")


def parse_policy(content: bytes) -> WitnessPolicy:
    """Read a policy file. Raises ``PolicyError``."""
    reader = _Reader()
    lines = content.split(b"\n")
    if lines.pop():
        raise PolicyError(f"line {len(lines) + 1} of the policy does not end: the file may have been cut off")
    for number, line in enumerate(lines, 1):
        try:
            reader.read(line)
        except (PolicyError, NoteError) as error:
            raise PolicyError(f"line {number} of the policy: {error.detail}") from None
    if reader.quorum is None:
        raise PolicyError("the policy has no quorum line; where no cosignatures are asked for, it says «quorum none»")
    return WitnessPolicy(tuple(reader.logs), tuple(reader.witnesses), tuple(reader.groups), reader.quorum)


@dataclass(slots=True)
class _Reader:
    """The policy as far as it has been read."""

    logs: list[PolicyKey] = field(default_factory=list)
    witnesses: list[PolicyKey] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorum: str | None = None
    _names: set[str] = field(default_factory=set)
    _members: set[str] = field(default_factory=set)

    def read(self, line: bytes) -> None:
        if _FORBIDDEN.search(line) is not None:
            raise PolicyError("control characters other than tabs are not allowed")
        # Octets that are not ASCII are opaque: each of them comes out as it went in, whatever it stands for.
        items = [item for item in _BLANKS.split(line.decode("utf-8", "surrogateescape")) if item]
        if not items or items[0].startswith("#"):
            return
        keyword, *rest = items
        match keyword:
            case "log":
                self._read_log(rest)
            case "witness":
                self._read_witness(rest)
            case "group":
                self._read_group(rest)
            case "quorum":
                self._read_quorum(rest)
            case _:
                raise PolicyError("a line begins with log, witness, group, quorum or #")

    def _read_log(self, items: list[str]) -> None:
        if not 1 <= len(items) <= 1 + _URL:
            raise PolicyError("a log is written as: log VKEY [URL]")
        key = _key(items[0], ED25519, self.logs)
        self.logs.append(PolicyKey(key.name, key, _optional(items[1:])))

    def _read_witness(self, items: list[str]) -> None:
        if not 2 <= len(items) <= 2 + _URL:
            raise PolicyError("a witness is written as: witness NAME VKEY [URL]")
        key = _key(items[1], COSIGNATURE, self.witnesses)
        self._define(items[0])
        self.witnesses.append(PolicyKey(items[0], key, _optional(items[2:])))

    def _read_group(self, items: list[str]) -> None:
        if len(items) < 3:
            raise PolicyError("a group is written as: group NAME all|any|NUMBER MEMBER…")
        name, threshold, *members = items
        for member in members:
            self._require(member)
            if member in self._members:
                raise PolicyError("a name can be a member of one group only, and there only once")
            self._members.add(member)
        self._define(name)
        self.groups.append(Group(name, _threshold(threshold, len(members)), tuple(members)))

    def _read_quorum(self, items: list[str]) -> None:
        if len(items) != 1:
            raise PolicyError("a quorum is written as: quorum NAME")
        if self.quorum is not None:
            raise PolicyError("there is a quorum line already")
        if items[0] != NO_QUORUM:
            self._require(items[0])
        self.quorum = items[0]

    def _define(self, name: str) -> None:
        if name == NO_QUORUM or name in self._names:
            raise PolicyError(f"the name {shown(name)!r} is taken")
        self._names.add(name)

    def _require(self, name: str) -> None:
        if name not in self._names:
            raise PolicyError(f"{shown(name)!r} is not the name of a witness or a group on a line before this one")


def _key(text: str, kind: int, others: list[PolicyKey]) -> VerifierKey:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PolicyError("the name of the key is not UTF-8") from None
    if _ML_DSA.match(text) is not None:
        raise PolicyError(
            "this is a witness with a key of type 6 (ML-DSA-44), which is not supported yet; leave it out of the "
            "policy and its groups, or ask its operator for a key of type 4 (Ed25519)"
        )
    key = parse_verifier_key(text)
    if key.kind != kind:
        raise PolicyError("the key of a log is of type 1, that of a witness of type 4; this one is of the other type")
    # Under another name it would count twice.
    if any(other.key.public_key == key.public_key for other in others):
        raise PolicyError("the same public key stands on a line before this one")
    return key


def _optional(items: list[str]) -> str | None:
    return items[0] if items else None


def _threshold(text: str, members: int) -> int:
    if text in ("any", "all"):
        return 1 if text == "any" else members
    if _NUMBER.fullmatch(text) is None or not int(text) <= members:
        raise PolicyError(f"the threshold must be all, any, or a number from 1 to {members}, the number of members")
    return int(text)
