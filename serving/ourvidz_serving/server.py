"""The one way to start a server, and to stop it so that nobody notices."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import grpc
import structlog
import uvloop
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from ourvidz_serving import health, tracing
from ourvidz_serving.channel import MAX_MESSAGE_BYTES
from ourvidz_serving.interceptors import OPEN_SERVICES, CallInterceptor
from ourvidz_serving.metrics import CallMetrics, MetricsEndpoint, process_registry
from ourvidz_serving.settings import ServerSettings, SettingsError

log = structlog.get_logger(__name__)

MIN_PING_INTERVAL_MS = 10_000
"""How often a client may ping, calls or no calls."""

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # Otherwise a second server on the same port would start without a word and take half of the calls.
    ("grpc.so_reuseport", 0),
)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StartError(Exception):
    """The server can't start, for a reason that an operator can do something about. The message is for them."""


class Server:
    """A gRPC server with health, reflection, `/metrics`, and an orderly end.

    Services are added to `grpc` and made known by `add_service` before `start`. To be made in a running event loop.
    It takes one life: started once, drained once.

        server = Server(settings, name="sdxl", require_service_token=True)
        add_RenderServiceServicer_to_server(servicer, server.grpc)
        server.add_service("ourvidz.api.render.v1.RenderService")
        await server.run()

    Where `require_service_token` says so, every call but health and reflection must carry the settings' service token.
    On loopback such a server does without, if none is set; anywhere else that raises `SettingsError`.
    """

    def __init__(self, settings: ServerSettings, *, name: str, require_service_token: bool) -> None:
        if require_service_token and settings.service_token is None and not settings.on_loopback:
            raise SettingsError(
                f"{name} would listen on {settings.grpc_host}, where other machines can reach it, without a service "
                "token. Set OURVIDZ_SERVICE_TOKEN to the same secret for all servers, for example to the output of "
                "`openssl rand -hex 32`, or let it listen on 127.0.0.1."
            )
        self.name = name
        self.registry: CollectorRegistry = process_registry()
        """What /metrics shows; a server adds its own figures here."""
        self.traces = tracing.open_provider(name)
        """Makes the server's spans; a span processor added here sends them somewhere."""
        self.stopping = asyncio.Event()
        """Set once the server has been told to stop, by SIGTERM, SIGINT or `stop`."""
        interceptor = CallInterceptor(
            service_token=settings.service_token if require_service_token else None,
            metrics=CallMetrics(self.registry),
            traces=self.traces,
        )
        self.grpc: grpc.aio.Server = grpc.aio.server(interceptors=[interceptor], options=OPTIONS)
        self._settings = settings
        self._health = health.HealthServicer()
        self._services: list[str] = []
        self._drain_callbacks: list[Callable[[], Awaitable[None]]] = []
        self._hurried = asyncio.Event()
        self._endpoint: MetricsEndpoint | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port of the gRPC server, once started."""
        return self._port

    @property
    def metrics_port(self) -> int:
        """The port of `/metrics`; 0 unless it is being served."""
        return self._endpoint.port if self._endpoint else 0

    def add_service(self, full_name: str) -> None:
        """Make a service known to reflection and health. It counts as not serving until `set_serving` says so."""
        self._services.append(full_name)
        self._health.add(full_name)

    def set_serving(self, full_name: str, serving: bool) -> None:  # noqa: FBT001  # reads well where it is called
        """Tell health whether a service can be used; the server as a whole serves when all its services do."""
        self._health.set(full_name, serving=serving)

    def on_drain(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Run `callback` when the server drains, after health says NOT_SERVING and while calls still run.

        Callbacks run one after the other in the order in which they were added, and share the drain's grace.
        """
        self._drain_callbacks.append(callback)

    async def start(self) -> None:
        """Bind both ports and take calls. Raises `StartError` if a port can't be had."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.enable_server_reflection((*self._services, *OPEN_SERVICES), self.grpc)
        host = self._settings.grpc_host
        address = f"[{host}]" if ":" in host and not host.startswith("[") else host
        try:
            self._port = self.grpc.add_insecure_port(f"{address}:{self._settings.grpc_port}")
        except RuntimeError as error:
            raise StartError(
                f"{self.name} can't listen on {address}:{self._settings.grpc_port}; is it in use?"
            ) from error
        metrics_host, metrics_port = self._settings.metrics_host, self._settings.metrics_port
        try:
            self._endpoint = MetricsEndpoint.open(self.registry, metrics_host, metrics_port)
        except OSError as error:
            raise StartError(f"{self.name} can't serve /metrics on {metrics_host}:{metrics_port}: {error}") from error
        await self.grpc.start()
        log.info("server started", server=self.name, grpc=f"{address}:{self._port}", metrics_port=self.metrics_port)

    def stop(self) -> None:
        """Tell the server to stop: the first time in good order, the second time at once."""
        if self.stopping.is_set():
            self._hurried.set()
        self.stopping.set()

    def catch_signals(self) -> None:
        """Let SIGTERM and SIGINT stop the server, until it has drained. To be called in the main thread."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self.stop)

    async def wait_stopped(self) -> None:
        """Return once the server is told to stop, by `stop` or a signal."""
        self.catch_signals()
        await self.stopping.wait()

    async def drain(self) -> None:
        """Take no new work, let running calls end, and stop; after the settings' grace, or a second signal, at once."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_grace_s
        self.stopping.set()
        self._health.shut()
        log.info("server drains", server=self.name, grace_s=self._settings.drain_grace_s)
        orderly = asyncio.create_task(self._end_calls(deadline))
        hurry = asyncio.create_task(self._hurried.wait())
        try:
            await asyncio.wait((orderly, hurry), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (orderly, hurry):
                task.cancel()
            await asyncio.wait((orderly, hurry))
            await self.grpc.stop(None)
            if self._endpoint is not None:
                await self._endpoint.close()
                self._endpoint = None
            self.traces.shutdown()
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)
        if not orderly.cancelled():
            orderly.result()
        log.info("server stopped", server=self.name)

    async def run(self) -> None:
        """Start, serve until told to stop, and drain."""
        # Before the start, so that there is no moment at which a signal would kill a server that takes calls.
        self.catch_signals()
        await self.start()
        await self.wait_stopped()
        await self.drain()

    async def _end_calls(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                for callback in self._drain_callbacks:
                    try:
                        await callback()
                    except Exception:
                        # What one part can't hand back in good order must not keep the others from it.
                        log.exception("drain callback failed", server=self.name)
        except TimeoutError:
            log.warning("drain took too long", server=self.name)
        self._health.close()
        await self.grpc.stop(max(0.0, deadline - asyncio.get_running_loop().time()))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a server's `main` on uvloop, and end the process with a clean exit code.

    0 after an orderly end, 1 if it can't start, 2 if its settings don't go together, 130 if it was interrupted before
    it could drain.
    """
    try:
        uvloop.run(main())
    except SettingsError as error:
        print(f"The server can't start, because its settings are wrong:\n\n  {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    except StartError as error:
        print(f"The server can't start: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
