"""AWS KMS as moto's server plays it, over HTTP on a port of this machine, with what moto leaves out.

KMS refuses to use a key that is disabled or waits for its deletion, and to delete it once more (DisabledException,
KMSInvalidStateException: "Key states of AWS KMS keys" in its developer guide); it says IncorrectKeyException of a blob
that another key made (API reference, Decrypt), and tells of aliases page by page. moto 5.2 uses every key whatever its
state, puts its deletion off when asked again, says AccessDeniedException, and tells of all aliases at once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from moto.core.exceptions import JsonRESTError
from moto.kms.exceptions import AccessDeniedException
from moto.kms.models import KmsBackend
from moto.kms.responses import KmsResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from tests.support.server import free_port

REGION = "eu-central-1"
PAGE = 50
CONTENT_TYPE = "application/x-amz-json-1.1"
SECRET = "made-up-secret-of-the-tests"
REFUSAL = "User: arn:aws:iam::123456789012:user/anna.smith may not"
"""As AWS words it: with the name of a person."""


class KmsServer:
    """One KMS, empty at first. Use it as a context manager; it keeps its port and its keys while it is stopped."""

    def __init__(self) -> None:
        self.port = free_port()
        self.operations: set[str] = set()
        """What it was asked for, by the names of its API."""
        self.credentials: list[str] = []
        """Whose key signed each request."""
        self._server: BaseWSGIServer | None = None
        self._thread = threading.Thread()
        self._refusals: dict[str, str] = {}
        self._to_lose: list[str] = []
        self._patches = [
            patch.object(KmsBackend, "encrypt", _strictly(KmsBackend.encrypt)),
            patch.object(KmsBackend, "decrypt", _strictly(KmsBackend.decrypt)),
            patch.object(KmsBackend, "schedule_key_deletion", _once(KmsBackend.schedule_key_deletion)),
            patch.object(KmsResponse, "list_aliases", _in_pages(KmsResponse.list_aliases)),
        ]

    def __enter__(self) -> KmsServer:
        for each in self._patches:
            each.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for each in self._patches:
            each.stop()

    @property
    def environment(self) -> Mapping[str, str]:
        """Credentials, as AWS clients look for them; and nothing of whoever runs the tests."""
        return {
            "AWS_ACCESS_KEY_ID": "AKIAMADEUP",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def url_of(self, name: str) -> str:
        """The setting for KEKs of this name."""
        return f"awskms:alias/{name}?region={REGION}&endpoint={self.endpoint}&deletion-days=7"

    def start(self) -> None:
        """Answer."""
        application = DomainDispatcherApplication(create_backend_app)

        def noted(environ: dict[str, Any], start_response: Any) -> Any:
            operation = environ["HTTP_X_AMZ_TARGET"].removeprefix("TrentService.")
            self.operations.add(operation)
            self.credentials.append(environ["HTTP_AUTHORIZATION"].partition("Credential=")[2].partition("/")[0])
            code = self._refusals.get(operation)
            if operation in self._to_lose:
                self._to_lose.remove(operation)
                list(application(environ, lambda *_: None))
                start_response("500 Internal Server Error", [("Content-Type", CONTENT_TYPE)])
                return [b'{"__type": "InternalFailure"}']
            if code is None:
                return application(environ, start_response)
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            start_response("400 Bad Request", [("Content-Type", CONTENT_TYPE)])
            return [json.dumps({"__type": code, "message": REFUSAL}).encode()]

        self._server = make_server("127.0.0.1", self.port, noted, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections; what it knows stays."""
        if self._server is not None:
            self._server.shutdown()
            # The thread closes the socket on its way out: before that, the port is not free.
            self._thread.join()
            self._server = None

    def lose_answer(self, operation: str) -> None:
        """Do the operation when it is asked for next, and say that it has failed."""
        self._to_lose.append(operation)

    @contextmanager
    def refusing(self, code: str, *operations: str) -> Iterator[None]:
        """Answer these operations with this error."""
        self._refusals = dict.fromkeys(operations, code)
        try:
            yield
        finally:
            self._refusals = {}


def _strictly(operation: Any) -> Any:
    def strict(backend: KmsBackend, *arguments: Any, **named: Any) -> Any:
        # A request that names no key fails here: KMS must not choose one.
        state = backend.keys[backend.any_id_to_key_id(named["key_id"])].key_state
        if state != "Enabled":
            raise JsonRESTError("DisabledException" if state == "Disabled" else "KMSInvalidStateException", state)
        try:
            return operation(backend, *arguments, **named)
        except AccessDeniedException:
            raise JsonRESTError("IncorrectKeyException", "made by another key") from None

    return strict


def _once(operation: Any) -> Any:
    lock = threading.Lock()

    def once(backend: KmsBackend, key_id: str, days: int) -> Any:
        with lock:
            if backend.keys[key_id].key_state == "PendingDeletion":
                raise JsonRESTError("KMSInvalidStateException", "is pending deletion")
            return operation(backend, key_id, days)

    return once


def _in_pages(operation: Any) -> Any:
    def in_pages(response: KmsResponse) -> str:
        everything = json.loads(operation(response))["Aliases"]
        return json.dumps(_one_page(everything, response._get_param("Marker")))

    return in_pages


def _one_page(aliases: list[Any], marker: str | None) -> dict[str, Any]:
    start = int(marker or 0)
    page: dict[str, Any] = {"Aliases": aliases[start : start + PAGE], "Truncated": len(aliases) > start + PAGE}
    return {**page, "NextMarker": str(start + PAGE)} if page["Truncated"] else page
