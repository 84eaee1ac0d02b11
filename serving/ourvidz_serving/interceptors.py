"""What stands around every call of a server: the service token, errors, the trace, figures and one log line."""

from __future__ import annotations

import asyncio
import hmac
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span
from opentelemetry.trace import StatusCode as SpanStatus
from pydantic import SecretStr

from ourvidz.rpc_status import DETAILS_KEY
from ourvidz_serving.errors import Internal, InvalidRequest, ServiceError, Unauthenticated, to_status
from ourvidz_serving.metrics import UNKNOWN, CallMetrics
from ourvidz_serving.tracing import server_span

log = structlog.get_logger(__name__)

# In quotes, since grpc's classes take parameters in their type stubs only.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Incoming = Sequence[tuple[str, str | bytes]]

OPEN_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
"""What needs no token, since probes have none: it tells how a server is, and changes nothing."""

SERVER_FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)

NEUTRAL = "The server failed. The failure has been logged."
"""All that a caller gets to read of an exception that nobody foresaw."""

NOT_AGAIN = ("grpc-retry-pushback-ms", "-1")
"""Tells gRPC's own retries, where a client has them, that this answer was meant."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Runs each call of a server, whichever of the four kinds it is.

    - Where the server has a service token, a call without it is UNAUTHENTICATED.
    - A `ServiceError` that is raised in a handler, before or amid its answers, goes out as a google.rpc.Status; any
      other exception as INTERNAL, with nothing of its insides, and into the log with its traceback.
    - The call continues its caller's trace, is counted once, and leaves one log line when it has ended.
    - A caller that goes away cancels the handler: that is no error, and the handler's generator is closed at once.
    """

    def __init__(self, *, service_token: SecretStr | None, metrics: CallMetrics, traces: TracerProvider) -> None:
        self._authorization = f"Bearer {service_token.get_secret_value()}".encode() if service_token else None
        self._metrics = metrics
        self._traces = traces

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's handler with all of this around it."""
        handler = await continuation(handler_call_details)
        if handler is None:
            # grpc itself answers UNIMPLEMENTED.
            self._metrics.started(UNKNOWN, UNKNOWN)
            self._metrics.handled(UNKNOWN, UNKNOWN, grpc.StatusCode.UNIMPLEMENTED.name, 0.0)
            return None
        return self._wrapped(handler, handler_call_details)

    def _wrapped(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        call = Call(details.method, tuple(details.invocation_metadata or ()))
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def handle(request: Any, context: Context) -> Any:
            with server_span(self._traces, call.method, call.metadata) as span, self._observed(call, span, context):
                try:
                    self._authorize(call)
                    return await _answer(behaviour, _decoded(request), context)
                except grpc.aio.BaseError:
                    # The call is over already: a handler aborted it, or the caller went away amid a write.
                    raise
                except ServiceError as error:
                    call.reason = error.reason
                    await _abort(error, context)
                except asyncio.CancelledError as error:
                    if _being_cancelled():
                        raise
                    # Something that the handler waited for was cancelled, and not the call: without an answer from us
                    # its caller would wait for ever.
                    await self._fail(error, call, context)
                except Exception as error:  # noqa: BLE001  # whatever it is, the caller gets an answer
                    await self._fail(error, call, context)

        make = _HANDLERS[handler.request_streaming, handler.response_streaming]
        return make(handle, _forgiving(handler.request_deserializer), handler.response_serializer)

    def _authorize(self, call: Call) -> None:
        if self._authorization is None or call.service in OPEN_SERVICES:
            return
        shown = dict(call.metadata).get("authorization", "")
        if not hmac.compare_digest(shown.encode() if isinstance(shown, str) else shown, self._authorization):
            raise Unauthenticated("this server takes calls that carry its service token only")

    async def _fail(self, cause: BaseException, call: Call, context: Context) -> None:
        log.error("handler failed", method=call.method, exc_info=cause)
        error = Internal(NEUTRAL)
        call.reason = error.reason
        await _abort(error, context)

    @contextmanager
    def _observed(self, call: Call, span: Span, context: Context) -> Iterator[None]:
        self._metrics.started(call.service, call.name)
        began = perf_counter()
        code = grpc.StatusCode.OK
        try:
            yield
            code = context.code() or code
        except BaseException:
            # Without a status of ours the call ends because its caller went away, or the server stopped it.
            code = context.code() if context.done() else grpc.StatusCode.CANCELLED
            raise
        finally:
            seconds = perf_counter() - began
            self._metrics.handled(call.service, call.name, code.name, seconds)
            span.set_attribute("rpc.grpc.status_code", code.value[0])
            if code in SERVER_FAULTS:
                span.set_status(SpanStatus.ERROR)
            level = logging.ERROR if code in SERVER_FAULTS else logging.INFO
            log.log(
                # Probes come every few seconds, for ever.
                logging.DEBUG if call.service in OPEN_SERVICES else level,
                "call ended",
                method=call.method,
                code=code.name,
                duration_ms=round(seconds * 1000, 3),
                **({} if call.reason is None else {"reason": call.reason}),
            )


@dataclass(slots=True)
class Call:
    """One call, as its interceptor sees it."""

    method: str
    """The full method, for example `/ourvidz.api.render.v1.RenderService/Render`."""
    metadata: Incoming
    reason: str | None = None
    """Why it failed, once it has."""

    @property
    def service(self) -> str:
        """The service's full name."""
        return self.method.strip("/").partition("/")[0]

    @property
    def name(self) -> str:
        """The method's own name."""
        return self.method.rpartition("/")[2]


async def _answer(behaviour: Callable[..., Any], request: Any, context: Context) -> Any:
    """Run a handler; return its one response, or write those that it yields."""
    answer = behaviour(request, context)
    if not inspect.isasyncgen(answer):
        return await answer
    # We write the responses and don't yield them to grpc: it leaves a generator unclosed when the caller goes away
    # amid a write, and a render would go on for nobody.
    async with aclosing(answer):
        async for response in answer:
            await context.write(response)
    return None


async def _abort(error: ServiceError, context: Context) -> None:
    status = to_status(error)
    trailing: tuple[tuple[str, str | bytes], ...] = ((DETAILS_KEY, status.SerializeToString()),)
    if not error.repeated_at_once:
        trailing += (NOT_AGAIN,)
    await context.abort(error.grpc_status, status.message, trailing)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Undecodable:
    """Stands for a request whose bytes are no message, until it reaches the code that can answer for it."""


def _forgiving(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    # An error within grpc's own call of the deserializer would go to the caller in grpc's words, past all of the above.
    if deserialize is None:
        return None

    def decode(raw: bytes) -> Any:
        try:
            return deserialize(raw)
        except DecodeError:
            return _Undecodable()

    return decode


def _decoded(request: Any) -> Any:
    if isinstance(request, _Undecodable):
        raise InvalidRequest("the request is not a message of the type that this method takes")
    return _decoded_each(request) if hasattr(request, "__aiter__") else request


async def _decoded_each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _decoded(request)


_HANDLERS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    # (does the caller stream, does the server stream)
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
