"""The folder by way of which the processes of one service share what they count."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The name is ``prometheus_client``'s. Whoever sets it for a server and a worker sees the counts of both."""


@contextmanager
def shared_counts() -> Iterator[None]:
    """Have the processes that are started in this block share their counts, in a folder that lives as long as it,
    unless one is given. To be entered before ``prometheus_client`` is imported."""
    if os.environ.get(FOLDER_VARIABLE):
        yield
        return
    folder = tempfile.mkdtemp(prefix="audit-ledger-metrics-")
    os.environ[FOLDER_VARIABLE] = folder
    try:
        yield
    finally:
        del os.environ[FOLDER_VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)
