"""The command line as a program."""

from __future__ import annotations

import subprocess
import sys


def test_no_command_waits_for_the_web_framework() -> None:
    """Only those that need it load it, when they run: it takes as long as all the rest."""
    program = "import sys, api.cli; sys.exit('flask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
