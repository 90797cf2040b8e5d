"""A witness that is killed at any moment, beside another one on the same state: it never cosigns two histories."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import threading
import time
from pathlib import Path

from typing_extensions import override

from keyvault.signatures import verify_ed25519
from ledger.domain.checkpoints import Checkpoint, parse_checkpoint
from ledger.domain.notes import Note, parse_signature_lines, parse_verifier_key, verify_cosignature
from tests.support.logs import SignedLog, leaves
from tests.support.witness import WitnessProcess

ROUNDS = int(os.environ.get("AUDIT_LEDGER_TEST_ROUNDS", "3"))
SIZE = 400
COMMON = 5


class Poster(threading.Thread):
    """Posts the checkpoints of one history to one witness process, at random sizes, and notes what was cosigned."""

    def __init__(self, witness: WitnessProcess, log: SignedLog, stop: threading.Event, seed: int) -> None:
        super().__init__()
        self._witness, self._log, self._stopped = witness, log, stop
        self._random = random.Random(seed)
        self.cosigned: list[Checkpoint] = []

    @override
    def run(self) -> None:
        """Until told to stop; the witness may be gone at any time."""
        old = 0
        while not self._stopped.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                new = min(SIZE, old + self._random.randrange(4))
                answer = self._witness.add(self._log.request(old, new))
                if answer.status == 200:
                    text = self._log.note(new).rpartition("\n\n")[0] + "\n"
                    note = Note(text, parse_signature_lines(answer.body.decode()))
                    verify_cosignature(note, parse_verifier_key(self._witness.verifier_key), verify_ed25519)
                    self.cosigned.append(parse_checkpoint(text))
                    old = new
                elif answer.status == 409:
                    old = min(SIZE, int(answer.body))


def test_killed_at_any_moment_it_never_cosigns_two_histories(tmp_path: Path) -> None:
    """Two processes on one state, each with two histories posted to it, killed again and again: all that was ever
    cosigned lies in one history, and the state is never behind what was given away."""
    log = SignedLog(leaves(SIZE))
    fork = log.fork(COMMON, leaves(SIZE - COMMON, "other"))
    with WitnessProcess() as first, WitnessProcess(folder=first.folder) as second:
        first.trust(log.key)
        stop = threading.Event()
        posters = [
            Poster(process, history, stop, seed)
            for seed, (process, history) in enumerate((w, h) for w in (first, second) for h in (log, fork))
        ]
        for poster in posters:
            poster.start()
        try:
            for number in range(ROUNDS):
                time.sleep(random.uniform(0.1, 0.5))
                victim = (first, second)[number % 2]
                victim.kill()
                victim.start()
            time.sleep(0.2)
        finally:
            stop.set()
            for poster in posters:
                poster.join()
        cosigned = [one for poster in posters for one in poster.cosigned]
        (line,) = first.run("logs").splitlines()
    beyond = [one for one in cosigned if one.size > COMMON]
    assert beyond
    chosen = log if beyond[0].root == log.tree.root(beyond[0].size) else fork
    assert all(one.root == chosen.tree.root(one.size) for one in cosigned)
    assert int(line.split(" size ")[1].split()[0]) >= max(one.size for one in cosigned)
