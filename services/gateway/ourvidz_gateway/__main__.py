"""Starts the gateway: `python -m ourvidz_gateway`."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from contextlib import AbstractContextManager, nullcontext

import structlog
import uvicorn
from starlette.types import ASGIApp

from ourvidz_gateway.catalog import Catalog, CatalogError, load_catalog
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.front import Front
from ourvidz_gateway.gateway import Gateway, open_gateway
from ourvidz_gateway.rest import create_rest_app
from ourvidz_gateway.rest.observe import Observed
from ourvidz_gateway.rpc import SERVICES, add_services
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_serving import logs
from ourvidz_serving.server import Server, StartError, run
from ourvidz_serving.settings import load
from ourvidz_serving.storage import StorageSettings, open_store

log = structlog.get_logger()


def main() -> None:
    """Read the settings and serve until told to stop."""
    settings, storage_settings = load(GatewaySettings), load(StorageSettings)
    logs.configure(settings.log_level, settings.log_format)
    try:
        catalog = load_catalog(settings.catalog)
    except CatalogError as error:
        print(f"The server can't start, because its catalog is wrong:\n\n  {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    run(lambda: serve(settings, storage_settings, catalog))


async def serve(settings: GatewaySettings, storage_settings: StorageSettings, catalog: Catalog) -> None:
    """Serve REST and gRPC over one application layer until the process is told to stop."""
    server = Server(settings, name="gateway", require_service_token=False)
    server.catch_signals()
    store = open_store(storage_settings)
    try:
        async with open_gateway(settings, store) as gateway:
            front = Front.over(gateway, catalog=catalog, store=store, settings=settings)
            add_services(server, front)
            await _serve_both(server, front, gateway)
    except DatabaseUnavailable as error:
        raise StartError(f"the database can't be reached: {error.__cause__}") from error
    finally:
        await store.close()


async def _serve_both(server: Server, front: Front, gateway: Gateway) -> None:
    rest = _Rest(Observed(create_rest_app(front), registry=server.registry, traces=server.traces), front.settings)

    async def leave() -> None:
        gateway.drain()
        # Watchers are sent away first: they go on elsewhere from their last event, and nothing else takes long.
        gateway.close_watches()
        await rest.stop()

    server.on_drain(leave)
    await server.start()
    await rest.start()
    for service in SERVICES:
        server.set_serving(service, True)
    # What is there by now stays: without it, looking for garbage takes a tenth of the time that requests do.
    gc.collect()
    gc.freeze()
    await server.wait_stopped()
    await server.drain()


class _Rest:
    """The REST API on uvicorn, started and stopped by us."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._host, self._port = settings.rest_host, settings.rest_port
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(settings.drain_grace_s),
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take requests. Raises `StartError` if the port can't be had."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server((self._host, self._port), family=family, backlog=2048)
        except OSError as error:
            raise StartError(f"the REST API can't listen on {self._host}:{self._port}: {error.strerror}") from error
        self._task = asyncio.create_task(self._server.serve([listener]), name="rest")
        log.info("rest started", address=f"{self._host}:{listener.getsockname()[1]}")

    async def stop(self) -> None:
        """Let running requests end, and stop."""
        self._server.should_exit = True
        if self._task:
            await self._task


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Capture none."""
        return nullcontext()


if __name__ == "__main__":
    main()
