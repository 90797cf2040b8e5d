"""Write the OpenAPI document: ``python -m api.openapi [FILE]`` (default ``docs/openapi.json``)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from api.app import create_app
from api.config import Settings
from api.routes.documentation import DOCUMENT
from api.wiring import open_service

DEFAULT_FILE = "docs/openapi.json"


def openapi_text() -> str:
    """The document as it is checked in: indented, so that a change of the contract can be read in a diff."""
    service = open_service(Settings.from_environment({}))
    try:
        document = json.loads(create_app(service).extensions[DOCUMENT])
    finally:
        service.close()
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_FILE).write_text(openapi_text(), encoding="utf-8")
