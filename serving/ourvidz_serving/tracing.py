"""Follows a call from server to server: W3C trace context in and out, and the job that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

JOB_ID_KEY = "x-ourvidz-job-id"
"""The metadata that names the job that a call is made for."""

JOB_ID = "job_id"
"""Under this name a job's id stands on log lines."""

MAX_JOB_ID_LENGTH = 200

_propagator = TraceContextTextMapPropagator()


def open_provider(server_name: str) -> TracerProvider:
    """Return what makes a server's spans. They go nowhere until a span processor is added."""
    return TracerProvider(resource=Resource({SERVICE_NAME: server_name}), shutdown_on_exit=False)


def inject(metadata: Iterable[tuple[str, str | bytes]] = ()) -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata with the trace and the job of the running call added, for a call to another server."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    job_id = structlog.contextvars.get_contextvars().get(JOB_ID)
    if job_id is not None:
        carrier[JOB_ID_KEY] = str(job_id)
    # What the caller gave by hand wins.
    given = tuple(metadata)
    names = {key for key, _ in given}
    return (*given, *((key, value) for key, value in carrier.items() if key not in names))


@lru_cache(maxsize=8)
def _tracer(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("ourvidz_serving")


@contextmanager
def server_span(provider: TracerProvider, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Iterator[Span]:
    """Run a call within a span that continues its caller's trace, and with its caller's job id on each log line.

    Metadata that names no trace, or that is broken, begins a new one. How the call ended is for the caller of this to
    note on the span.
    """
    carrier = {key: value for key, value in metadata if isinstance(value, str)}
    job_id = {JOB_ID: carrier[JOB_ID_KEY][:MAX_JOB_ID_LENGTH]} if JOB_ID_KEY in carrier else {}
    tracer = _tracer(provider)
    parent = _propagator.extract(carrier)
    with (
        tracer.start_as_current_span(
            method.lstrip("/"),
            context=parent,
            kind=SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span,
        structlog.contextvars.bound_contextvars(**job_id),
    ):
        yield span


def current_trace_id() -> str | None:
    """Return the trace that is being followed, as 32 hexadecimal digits; None outside of any."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None
