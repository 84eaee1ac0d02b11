"""Says which services of a server can be used: grpc.health.v1, Check and Watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ourvidz_serving.errors import NotFound

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

OVERALL = ""
"""The name that asks for the server as a whole: it serves when all its services do."""


class UnknownService(NotFound):
    """Check was asked for a service that this server doesn't have."""

    reason = "UNKNOWN_SERVICE"


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it ships no types
    """Holds the state of each service, by its full name, and tells each watcher of every change.

    We don't use grpcio's own servicer: there, one watcher that stops reading blocks every change of state, and watchers
    keep a server that drains open until its grace is over.
    """

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {}
        self._shut = False
        self._closed = False
        self._changed = asyncio.Event()

    def add(self, service: str) -> None:
        """Make a service known; it does not serve yet."""
        self._serving[service] = False
        self._tell()

    def set(self, service: str, *, serving: bool) -> None:
        """Say whether a service can be used. Raises `KeyError` for one that was not added."""
        if self._serving[service] != serving:
            self._serving[service] = serving
            self._tell()

    def shut(self) -> None:
        """Say for good that nothing serves any more, whatever is set from now on."""
        self._shut = True
        self._tell()

    def close(self) -> None:
        """End all watches, each after it has said how things stand."""
        self._closed = True
        self._tell()

    async def Check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ARG002, N802
        """Return the state of one service; NOT_FOUND for a service that this server doesn't have."""
        status = self._status(request.service)
        if status == SERVICE_UNKNOWN:
            raise UnknownService(f"this server has no service {request.service!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802
        self,
        request: Any,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> AsyncIterator[Any]:
        """Yield the state of one service, and again whenever it has changed. What changed and changed back may pass."""
        told = None
        while True:
            # Taken before the state is read, so that no change falls in between.
            changed = self._changed
            status = self._status(request.service)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            elif self._closed:
                return
            else:
                await changed.wait()

    def _status(self, service: str) -> Any:
        if service != OVERALL and service not in self._serving:
            return SERVICE_UNKNOWN
        serving = all(self._serving.values()) if service == OVERALL else self._serving[service]
        return SERVING if serving and not self._shut else NOT_SERVING

    def _tell(self) -> None:
        # A fresh event for each change: a watcher that is still writing the last one finds its own event set.
        self._changed.set()
        self._changed = asyncio.Event()
