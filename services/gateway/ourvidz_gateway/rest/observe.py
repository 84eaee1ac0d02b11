"""What operators see of the REST API: a count and a time for each request, one log line, and a trace."""

from __future__ import annotations

from time import perf_counter

import structlog
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ourvidz_serving.metrics import BUCKETS_S, UNKNOWN
from ourvidz_serving.tracing import server_span

log = structlog.get_logger()

QUIET = frozenset({"/healthz", "/readyz"})
"""Probes come every few seconds, for ever: they are counted, and not logged."""


METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class Observed:
    """An ASGI app with all of this around it."""

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry, traces: TracerProvider) -> None:
        self._app = app
        self._traces = traces
        self._requests = Counter(
            "http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time to the end of the answer.",
            ("method", "route"),
            registry=registry,
            buckets=BUCKETS_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        with server_span(self._traces, f"{scope['method']} {scope['path']}", headers):
            began = perf_counter()
            try:
                await self._app(scope, receive, note_status)
            finally:
                self._note(scope, status, perf_counter() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # The template, not the path: callers make up paths, and methods too, and each label costs memory.
        route = getattr(scope.get("route"), "path", UNKNOWN)
        method = scope["method"] if route != UNKNOWN and scope["method"] in METHODS else UNKNOWN
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)
        if route not in QUIET:
            log.info(
                "request answered", method=method, route=route, status=status, duration_ms=round(seconds * 1000, 3)
            )
