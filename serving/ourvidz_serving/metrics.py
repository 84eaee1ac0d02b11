"""Counts and times the calls that a server answers, and serves the figures to Prometheus."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from threading import Thread
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
"""From an answer out of memory to the longest render that a job may take, in seconds."""

UNKNOWN = "unknown"
"""Stands for every method that a server doesn't have: callers make up the names, and each label costs memory."""


def process_registry() -> CollectorRegistry:
    """Return a registry that already tells of the process: memory, CPU, open files, garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class CallMetrics:
    """How many calls began, how they ended and how long they took, by service and method.

    The names are those that gRPC servers in other languages use, so that common dashboards fit. Calls in progress are
    those started less those handled.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("grpc_service", "grpc_method")
        self._started = Counter("grpc_server_started", "Calls begun.", labels, registry=registry)
        self._handled = Counter("grpc_server_handled", "Calls ended.", (*labels, "grpc_code"), registry=registry)
        self._seconds = Histogram(
            "grpc_server_handling_seconds", "Time to the end of a call.", labels, registry=registry, buckets=BUCKETS_S
        )

    def started(self, service: str, method: str) -> None:
        """Count a call that begins."""
        self._started.labels(service, method).inc()

    def handled(self, service: str, method: str, code: str, seconds: float) -> None:
        """Count a call that has ended, with the code's name, for example `OK`."""
        self._handled.labels(service, method, code).inc()
        self._seconds.labels(service, method).observe(seconds)


class MetricsEndpoint:
    """`/metrics` over HTTP, served by a thread of its own, so that it answers even when the event loop is busy."""

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        self._server = server
        self._thread = thread

    @classmethod
    def open(cls, registry: CollectorRegistry, host: str, port: int) -> Self:
        """Serve the registry on `host` and `port`; port 0 takes a free one. Raises `OSError` if it can't be bound."""
        return cls(*start_http_server(port, host, registry))

    @property
    def port(self) -> int:
        """The port that is bound."""
        return self._server.server_port

    async def close(self) -> None:
        """Stop serving; when this returns, the port is free."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        stopper = Thread(target=self._server.shutdown)
        stopper.start()
        # The serving thread looks for the order to stop every half second only, but a connection wakes it up.
        with suppress(OSError):
            socket.create_connection((str(self._server.server_address[0]), self.port), timeout=1).close()
        stopper.join()
        self._server.server_close()
        self._thread.join()
