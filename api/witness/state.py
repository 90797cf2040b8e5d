"""What a witness keeps, in a folder of its own: its key, whom it trusts, what it has cosigned, and evidence.

The whole worth of a witness is that it remembers. So what it has cosigned is on the disk before anybody is told; the
look at the old state and the writing of the new one are one transaction, whoever else writes; and a state that is not
there is never made anew by the way: a witness without memory would cosign a second history.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Final

from api import evidence
from api.evidence import keep_evidence
from api.logs import LOGGER
from api.private_files import sync, write_private
from keyvault.signatures import SEED_BYTES, SigningKey, verify_ed25519
from ledger.domain.notes import (
    COSIGNATURE,
    ED25519,
    Note,
    NoteError,
    NoteSignature,
    VerifierKey,
    cosignature,
    cosigned_message,
    from_base64,
    is_key_name,
    parse_verifier_key,
    to_base64,
)
from ledger.domain.witnessing import NOTHING_SEEN, AddCheckpoint, RefusalError, Seen, check_signatures, decide
from ledger.errors import LedgerError

KEY_FILE: Final = "witness-key"
STATE_FILE: Final = "witness.db"
EVIDENCE_FOLDER: Final = "evidence"
BUSY_SECONDS: Final = 10.0
"""How long a request waits for others that write."""

_FORMAT: Final = 1
_PRIVATE: Final = "PRIVATE+KEY"
_SCHEMA: Final = (
    "CREATE TABLE witness (verifier_key TEXT NOT NULL PRIMARY KEY) STRICT",
    """CREATE TABLE trusted (
        origin TEXT NOT NULL,
        verifier_key TEXT NOT NULL,
        PRIMARY KEY (origin, verifier_key)
    ) STRICT""",
    """CREATE TABLE cosigned (
        origin TEXT NOT NULL PRIMARY KEY,
        origin_hash TEXT NOT NULL UNIQUE,
        size INTEGER NOT NULL,
        root BLOB NOT NULL,
        cosigned_at INTEGER NOT NULL,
        note TEXT NOT NULL
    ) STRICT""",
    f"PRAGMA user_version = {_FORMAT}",
)


class WitnessStateError(LedgerError):
    """The folder of a witness is not as it must be, or cannot be used now. The message says what to do."""


class _ContradictionError(Exception):
    """A refused checkpoint does not fit to what was cosigned. ``note``: that, or None for nothing; ``is_fork``: it has
    another tree of the same size, which is shown by the two notes alone."""

    def __init__(self, refusal: RefusalError, note: str | None, *, is_fork: bool) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal
        self.note = note
        self.is_fork = is_fork


_log = logging.getLogger(LOGGER)


@dataclass(frozen=True, slots=True)
class Trusted:
    """A log that may be cosigned. ``seen``: what of it was cosigned last, ``cosigned_at``: when (POSIX seconds, or None
    for never)."""

    key: VerifierKey
    seen: Seen
    cosigned_at: int | None


def origin_hash(origin: str) -> str:
    """What stands for an origin in an address."""
    return sha256(origin.encode()).hexdigest()


def create_state(folder: Path, name: str) -> WitnessState:
    """Make the folder of a new witness, and its key. Raises ``WitnessStateError`` where there is one already."""
    if not is_key_name(name):
        raise WitnessStateError("the name of a witness has no white space and no plus; best is an address of yours")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / KEY_FILE).exists() or (folder / STATE_FILE).exists():
        raise WitnessStateError(f"there is a witness in {folder}; a new one takes a folder of its own")
    folder.chmod(0o700)
    signer = SigningKey.generate()
    key = VerifierKey(name, COSIGNATURE, signer.public_key)
    state = WitnessState(folder, key, signer)
    write_private(folder / STATE_FILE, b"")
    with state.writing() as connection:
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO witness (verifier_key) VALUES (?)", (key.text,))
    sync(folder)
    # Last: a key without a state is a witness that has lost its memory, and a crash must not look like that.
    material = to_base64(bytes((COSIGNATURE,)) + signer.seed)
    write_private(folder / KEY_FILE, f"{_PRIVATE}+{name}+{key.key_id.hex()}+{material}\n".encode())
    return state


def open_state(folder: Path) -> WitnessState:
    """The witness in a folder. Raises ``WitnessStateError``."""
    key, signer = _read_key(folder / KEY_FILE)
    if not (folder / STATE_FILE).exists():
        raise WitnessStateError(
            f"{folder / STATE_FILE} is not there: this witness has lost its memory, and could cosign another history. "
            "Do not go on with its key: make a new witness with another name, and hand out the key of that one"
        )
    state = WitnessState(folder, key, signer)
    state.check()
    return state


def _read_key(path: Path) -> tuple[VerifierKey, SigningKey]:
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except FileNotFoundError:
        raise WitnessStateError(
            f"there is no witness in {path.parent}; make one with: audit-ledger witness init"
        ) from None
    except UnicodeDecodeError:
        text = ""
    name, key_id, encoded = [*text.removeprefix(f"{_PRIVATE}+").split("+", 2), "", ""][:3]
    try:
        material = from_base64(encoded)
    except NoteError:
        material = b""
    if len(material) == 1 + SEED_BYTES and material[0] == COSIGNATURE:
        signer = SigningKey(material[1:])
        key = VerifierKey(name, COSIGNATURE, signer.public_key)
        if key.key_id.hex() == key_id:
            return key, signer
    raise WitnessStateError(f"{path} does not hold the key of a witness; put back what was there")


class WitnessState:
    """The memory of one witness. Shared by threads, and by any number of processes on one machine."""

    def __init__(self, folder: Path, key: VerifierKey, signer: SigningKey) -> None:
        self.folder = folder
        self.key = key
        self._signer = signer

    def check(self) -> None:
        """Raise ``WitnessStateError`` unless the file is the state of this witness, and of a version we know."""
        with self._reading() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            known = version == _FORMAT and connection.execute("SELECT verifier_key FROM witness").fetchall()
        if known != [(self.key.text,)]:
            raise WitnessStateError(
                f"{self.folder / STATE_FILE} is not the state of {self.key.name}, or of another version of this program"
            )

    def trust(self, key: VerifierKey) -> None:
        """From now on, cosign the log of this key: its name is the log's origin. A log may have several keys.

        Raises ``WitnessStateError``.
        """
        if key.kind != ED25519:
            raise WitnessStateError("this is the key of a witness; what is cosigned is logs, with keys of type 1")
        with self.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO trusted VALUES (?, ?)", (key.name, key.text))

    def logs(self) -> Sequence[Trusted]:
        """All that is trusted, by name."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT verifier_key, size, root, cosigned_at FROM trusted LEFT JOIN cosigned USING (origin) "
                "ORDER BY origin, verifier_key"
            ).fetchall()
        return [
            Trusted(parse_verifier_key(text), NOTHING_SEEN if size is None else Seen(size, root), at)
            for text, size, root, at in rows
        ]

    def last_note(self, hashed_origin: str) -> str | None:
        """The last checkpoint that was cosigned, with the log's signatures and the witness's."""
        with self._reading() as connection:
            row = connection.execute("SELECT note FROM cosigned WHERE origin_hash = ?", (hashed_origin,)).fetchone()
        return None if row is None else row[0]

    def cosign(self, request: AddCheckpoint, now: int) -> NoteSignature:
        """Cosign a checkpoint, and keep that. ``now``: POSIX seconds.

        The signature is given only when what it says is on the disk. Raises ``RefusalError``; of a checkpoint that a
        trusted key has signed and that does not fit to what was cosigned, evidence is kept. Raises
        ``WitnessStateError`` when the state cannot be read or written: then nothing was promised.
        """
        # Without the lock: strangers get no further than this.
        note = check_signatures(request, self._trusted(request.checkpoint.origin), verify_ed25519)
        try:
            return self._cosign(request, note, now)
        except _ContradictionError as contradiction:
            self._keep_evidence(request, contradiction)
            raise contradiction.refusal from None

    def _trusted(self, origin: str) -> Sequence[VerifierKey]:
        with self._reading() as connection:
            rows = connection.execute("SELECT verifier_key FROM trusted WHERE origin = ?", (origin,)).fetchall()
        return [parse_verifier_key(text) for (text,) in rows]

    def _cosign(self, request: AddCheckpoint, note: Note, now: int) -> NoteSignature:
        origin = request.checkpoint.origin
        with self.writing() as connection:
            row = connection.execute(
                "SELECT size, root, cosigned_at, note FROM cosigned WHERE origin = ?", (origin,)
            ).fetchone()
            size, root, last, known = (NOTHING_SEEN.size, NOTHING_SEEN.root, 1, None) if row is None else row
            try:
                seen = decide(Seen(size, root), request)
            except RefusalError as refusal:
                if refusal.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                    raise
                is_fork = request.checkpoint.size == size and request.checkpoint.root != root
                raise _ContradictionError(refusal, known, is_fork=is_fork) from None
            # A clock that was set back must not make the newest tree look older than the one before.
            timestamp = max(now, last)
            signature = self._signer.sign(cosigned_message(note.text, timestamp))
            line = cosignature(self.key, timestamp, signature)
            connection.execute(
                "INSERT OR REPLACE INTO cosigned VALUES (?, ?, ?, ?, ?, ?)",
                (
                    origin,
                    origin_hash(origin),
                    seen.size,
                    seen.root,
                    timestamp,
                    str(Note(note.text, (*note.signatures, line))),
                ),
            )
        return line

    def _keep_evidence(self, request: AddCheckpoint, found: _ContradictionError) -> None:
        checkpoint = request.checkpoint
        hashed = origin_hash(checkpoint.origin)
        folder, name = self.folder / EVIDENCE_FOLDER, f"{checkpoint.size}-{checkpoint.root.hex()}"
        text = (
            f"{self.key.name} did not cosign this checkpoint: {found.refusal.detail}.\n"
            f"It was sent with the old size {request.old} and {len(request.proof)} hashes of proof. If it has the size "
            "of the other one below\nand not its root, the log has signed two histories. If it is larger, the log must "
            "show a proof of consistency.\n\n"
            f"{request.note}\nWhat was cosigned last:\n\n{found.note or 'nothing'}\n"
        )
        try:
            if found.is_fork:
                keep_evidence(folder, hashed, name, text, most=evidence.MOST)
            else:
                # Anybody can send true checkpoints with false proofs: they must not take the place of a fork.
                keep_evidence(folder, f"unproven-{hashed}", name, text, newest=evidence.NEWEST)
        except OSError as error:
            _log.error("evidence-not-kept", extra={"origin": checkpoint.origin, "why": error.strerror})

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes beside. At the end of the block it is on the disk; an error inside
        leaves everything as it was. Raises ``WitnessStateError``."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            yield connection

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        # Of an address with mode=rw, so that no file is ever made by the way.
        address = f"{(self.folder / STATE_FILE).absolute().as_uri()}?mode=rw"
        try:
            with closing(sqlite3.connect(address, BUSY_SECONDS, isolation_level=None, uri=True)) as connection:
                # One file, which is complete whenever nobody writes. EXTRA also syncs the folder when the rollback
                # journal is gone: FULL alone could bring it back after a power cut, and with it the state before.
                connection.execute("PRAGMA journal_mode = DELETE")
                connection.execute("PRAGMA synchronous = EXTRA")
                yield connection
        except sqlite3.Error as error:
            raise WitnessStateError(
                f"the state in {self.folder} cannot be used now ({type(error).__name__})"
            ) from error
