"""Processes for tests: each is forked from one that has the program imported, and has opened and started nothing."""

from __future__ import annotations

import multiprocessing
from typing import Final

processes: Final = multiprocessing.get_context("forkserver")
# To import it anew takes most of a second for each process: longer than what most of them do.
processes.set_forkserver_preload(["tests.conftest", "ledger.services.worker"])
