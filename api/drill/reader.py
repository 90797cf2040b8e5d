"""A reader: a process that has the service open and its caches warm. ``python -m api.drill.reader PID``.

One line of JSON on standard input says whom to ask about; every further line has it asked in every way, and one line
of JSON (way → answer) on standard output is what it was told. Ends with its input, or with the process PID.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from uuid import UUID

from api.config import Settings
from api.drill.asking import WAYS, Question
from api.starting import end_with
from api.wiring import open_service


def main() -> None:
    """Read, until nobody asks any more."""
    end_with(int(sys.argv[1]), signal.SIGKILL)
    service = open_service(Settings.from_environment(os.environ))
    told = json.loads(sys.stdin.readline())
    refs = (bytes.fromhex(told["subject_ref"]), bytes.fromhex(told["stream_ref"]))
    question = Question(UUID(told["ledger_id"]), *refs, told["position"])
    for _ in sys.stdin:
        answers = {name: way(service.deps, question).decode() for name, way in WAYS.items()}
        sys.stdout.write(json.dumps(answers) + "\n")
        sys.stdout.flush()
    service.close()


if __name__ == "__main__":
    main()
