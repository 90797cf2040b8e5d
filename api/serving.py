"""Serve the API with Granian: one process on SQLite, several on PostgreSQL (docs/adr/0001-wsgi-server.md)."""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import multiprocessing
import os
import signal
import socket
import stat
import sys
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from flask import Flask
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.mp import MPServer
from typing_extensions import override

from api.config import Settings
from api.guard import Guard
from api.logs import LOGGER, configure_logs
from api.shared_counts import shared_counts
from api.starting import StartError, check_dependencies, end_with
from api.turns import SERVER_THREADS
from api.wiring import open_service
from keyvault.errors import KeyVaultError
from ledger.errors import LedgerError
from ledger.services.erase import resume_erasures

SHUTDOWN_SECONDS: Final = 30
"""How long requests may go on after a SIGTERM."""

BACKLOG: Final = 1024
DEAD_SECONDS: Final = 120
"""After how long a client is given up that does not answer any more, or takes nothing of what it is sent."""

_SERVER_LOGS: Final[dict[str, Any]] = {
    "formatters": {},
    "handlers": {},
    # Through our own formatter, which lets no text of an application's exception pass.
    "loggers": {"_granian": {"handlers": [], "propagate": True}},
}

_log = logging.getLogger(LOGGER)


class _Flag(Protocol):
    """A byte that all processes of the server share."""

    value: int


class _Server(MPServer):
    """Granian that tells its workers of a shutdown before it begins, so that nobody goes on waiting for events."""

    stopping: _Flag

    @override
    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        self.stopping.value = 1
        super().signal_handler_interrupt(*args, **kwargs)  # type: ignore[no-untyped-call]  # has no annotations


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, and finish the requests that are under way. Raises ``StartError``."""
    configure_logs(settings.log_level)
    _prepare(settings)
    _check_port(settings)
    stopping = multiprocessing.RawValue(ctypes.c_byte, 0)
    server = _Server(
        "audit-ledger",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=settings.workers,
        # For requests that are under way; ``settings.threads`` of them are worked on at a time.
        blocking_threads=SERVER_THREADS,
        # Counts connections, idle ones too, and not requests: so it is no bound on work.
        backpressure=BACKLOG,
        backlog=BACKLOG,
        respawn_failed_workers=True,
        workers_kill_timeout=SHUTDOWN_SECONDS,
        log_access=False,
        log_level=LogLevels.error,
        log_dictconfig=_SERVER_LOGS,
    )
    server.stopping = stopping
    _log.info(
        "serving",
        extra={"host": settings.host, "port": settings.port, "workers": settings.workers, "threads": settings.threads},
    )
    with shared_counts():
        # Before the workers are forked, so that they need not each do it; and not before the counts have a folder.
        importlib.import_module("api.app")
        server.serve(target_loader=partial(load_app, settings, stopping, os.getpid()), wrap_loader=False)
    _note_how_far_all_is(settings)


def load_app(settings: Settings, stopping: _Flag, main_process: int) -> Flask:
    """The application of one worker, with a service of its own: no connection is shared across a fork."""
    # A worker that outlives a killed main process would go on serving the port, next to the workers of the next start.
    end_with(main_process, signal.SIGKILL)
    configure_logs(settings.log_level)
    # Imported here: see ``serve``.
    from api.app import create_app
    from api.metrics import Counters

    counts = Counters()
    service = open_service(settings, counts)
    guard = Guard(service)
    app = create_app(service, stopping=lambda: bool(stopping.value), counts=counts, guard=guard)
    guard.watch()
    unmarked = iter([settings.port])

    def mark() -> None:
        # With the first request: the worker listens by then.
        for port in unmarked:
            give_up_dead_clients(port)

    app.before_request(mark)
    # What is there by now stays. The collector would go through all of it again and again, which took a quarter of an
    # export and a sixth of an upload.
    gc.collect()
    gc.freeze()
    return app


def give_up_dead_clients(port: int, seconds: int = DEAD_SECONDS) -> None:
    """Have the kernel end connections to this port whose other side is gone, or has taken nothing for so long.

    A client that vanishes in the middle says nothing, and would keep its thread. Those who connect later take these
    options over from the listening socket, which the server does not show: so it is looked for. Only Linux can.
    """
    if sys.platform != "linux":
        return
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            copy = os.dup(int(name))
            try:
                if stat.S_ISSOCK(os.fstat(copy).st_mode):
                    _give_up_dead_client(copy, port, seconds)
            finally:
                os.close(copy)


def _give_up_dead_client(descriptor: int, port: int, seconds: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as found:
        address = found.getsockname()
        if found.family in (socket.AF_INET, socket.AF_INET6) and address[1] == port:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds // 2)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 10))
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def _note_how_far_all_is(settings: Settings) -> None:
    """For the next start, which then notices what is older."""
    service = open_service(settings)
    try:
        guard = Guard(service)
        if not guard.start():
            guard.finish()
    except (KeyVaultError, LedgerError):
        _log.warning("marks-not-noted")
    finally:
        service.close()


def _prepare(settings: Settings) -> None:
    """Look at the dependencies, mend what a restored copy has undone, and complete the erasures that a crash has left
    open, before anybody is served."""
    service = open_service(settings)
    try:
        guard = Guard(service)
        check_dependencies(service, guard)
        if guard.findings:
            return
        for erasure_id, error in resume_erasures(service.deps).items():
            if error is None:
                _log.info("erasure-resumed", extra={"erasure_id": str(erasure_id)})
            else:
                _log.error("erasure-still-open", extra={"erasure_id": str(erasure_id)}, exc_info=error)
    finally:
        # Before the workers are forked.
        service.close()


def _check_port(settings: Settings) -> None:
    """Say it in plain words when the address is taken: the server itself only ends."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except OSError as error:
        raise StartError(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror}); choose another with PORT"
        ) from error
