"""Runs commands in the process of the tests: to start a process takes many times longer than most commands."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

from api.cli import PROGRAM, main

ROOT = Path(__file__).parents[2]


def run_here(
    *arguments: str, environment: Mapping[str, str], text: str | bytes = "", folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a command as the program does, errors and exit status included, with ``text`` on its standard input.

    It sees this environment and no other, and works in ``folder``. What is left of it afterwards is what it wrote.
    """
    given = text.encode() if isinstance(text, str) else text
    printed, complained = io.BytesIO(), io.BytesIO()
    status = 0
    with (
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "argv", [PROGRAM, *arguments]),
        patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8")),
        contextlib.redirect_stdout(io.TextIOWrapper(printed, encoding="utf-8", write_through=True)),
        contextlib.redirect_stderr(io.TextIOWrapper(complained, encoding="utf-8", write_through=True)),
        contextlib.chdir(folder),
        _logs_put_back(),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        shown = printed.getvalue().decode(), complained.getvalue().decode()
    return subprocess.CompletedProcess([PROGRAM, *arguments], status, *shown)


@contextlib.contextmanager
def _logs_put_back() -> Iterator[None]:
    """A command sets the logs of its process up, and this process is the tests'."""
    names = (None, *logging.root.manager.loggerDict)
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    handlers, raising = logging.root.handlers, logging.raiseExceptions
    try:
        yield
    finally:
        logging.root.handlers, logging.raiseExceptions = handlers, raising
        for logger, level in before:
            logger.setLevel(level)
