"""The independent check: the Go program in ``tests/golang``, built once for each run of the tests."""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "golang" / "main.go"
LIBRARY = Path("src/golang.org/x/mod/sumdb/note/note.go")
HINT = "The tests need Go and golang.org/x/mod: run as root: apt-get install golang-go golang-golang-x-mod-dev"


class GoError(Exception):
    """The program cannot be built, or it found something wrong."""


def find_go() -> tuple[Path, Path] | None:
    """The Go program and the folder with its libraries, installed or where scripts/test unpacks them; None where one
    of them is missing."""
    unpacked = Path(sys.prefix, "golang", "files", "usr")
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}{os.pathsep}{unpacked / 'lib' / 'go' / 'bin'}")
    places = (Path("/usr/share/gocode"), unpacked / "share" / "gocode")
    library = next((place for place in places if (place / LIBRARY).exists()), None)
    return (Path(go), library) if go is not None and library is not None else None


@functools.cache
def built_program() -> Path:
    """The program, built."""
    found = find_go()
    if found is None:
        raise GoError(HINT)
    go, library = found
    folder = Path(tempfile.mkdtemp(prefix="audit-ledger-go-"))
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(library),
        "GOFLAGS": "",
        "GOCACHE": str(folder / "cache"),
    }
    built = folder / "check"
    done = subprocess.run(
        [go, "build", "-o", str(built), str(SOURCE)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise GoError(f"the Go program does not build:\n{done.stderr}")
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return built


def check_with_go(task: Mapping[str, Any]) -> list[int]:
    """Have a task checked, whose bytes are bytes; gives how many checkpoints, inclusion and consistency proofs and
    roots were looked at. Raises :class:`GoError` with what the program says."""
    text = json.dumps(task, default=lambda value: base64.b64encode(value).decode())
    done = subprocess.run([str(built_program())], input=text, capture_output=True, text=True, check=False)
    verdict, _, counts = done.stdout.strip().partition(" ")
    if done.returncode or verdict != "ok":
        raise GoError(done.stdout + done.stderr)
    return [int(count) for count in counts.split()]
