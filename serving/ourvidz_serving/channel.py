"""Opens channels from one server to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from grpc.aio import ClientCallDetails, Metadata

from ourvidz_serving import tracing

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest message either way: a reference image of 10 MiB sent inline, and room to spare."""

PING_EVERY_MS = 20_000
"""Slower than the server's `MIN_PING_INTERVAL_MS`, or the server would hang up on us for pinging too much."""

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A peer that vanished without a word is found within half a minute, even while nothing is said.
    ("grpc.keepalive_time_ms", PING_EVERY_MS),
    # Without the second one, gRPC 1.85 waits a minute for the answer, whatever the first one says.
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that comes back is found soon: a job may be waiting for it.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 3_000),
)


def open_channel(address: str, *, service_token: str | None = None) -> grpc.aio.Channel:
    """Open a channel to a server at `host:port`; it connects with the first call and again after each loss.

    Unary calls and server streams, which are all that servers make of each other, carry the service token, the trace
    and the job id of the call that they are made in.
    """
    authorization = None if service_token is None else f"Bearer {service_token}"
    return grpc.aio.insecure_channel(
        address, options=OPTIONS, interceptors=[_UnaryCalls(authorization), _ServerStreams(authorization)]
    )


class _Outgoing:
    """Adds to an outgoing call what every call between servers carries."""

    def __init__(self, authorization: str | None) -> None:
        self._authorization = (("authorization", authorization),) if authorization is not None else ()

    def _dress(self, details: ClientCallDetails) -> ClientCallDetails:
        metadata = tracing.inject((*(details.metadata or ()), *self._authorization))
        return ClientCallDetails(
            details.method, details.timeout, Metadata(*metadata), details.credentials, details.wait_for_ready
        )


class _UnaryCalls(_Outgoing, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._dress(client_call_details), request)


class _ServerStreams(_Outgoing, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._dress(client_call_details), request)
