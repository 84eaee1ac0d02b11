"""One whole gateway as its users meet it: REST and gRPC on real sockets, over a real database, store and renderer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import httpx
import uvicorn
from fastapi import FastAPI

from contract.driver import Driver
from contract.rest_driver import RestDriver
from contract.rpc_driver import RpcDriver
from ourvidz_gateway.__main__ import _Uvicorn
from ourvidz_gateway.catalog import Catalog, load_catalog
from ourvidz_gateway.front import Front
from ourvidz_gateway.gateway import Gateway, open_gateway
from ourvidz_gateway.jobs import Kind
from ourvidz_gateway.rest import create_rest_app
from ourvidz_gateway.rest.observe import Observed
from ourvidz_gateway.rpc import SERVICES, add_services
from ourvidz_serving.server import Server
from ourvidz_serving.storage import UrlSigner
from support import fronts
from support.renderer import Renderer, SwitchedStore

URL_SECRET = "another secret of the tests, for signed URLs"
WIDTH_PX, HEIGHT_PX, STEPS = 64, 48, 2


def small_catalog() -> Catalog:
    """Our catalog, with the pictures that the painting engine makes in place of SDXL's."""

    def small(recipe: Any) -> Any:
        return replace(recipe, width_px=WIDTH_PX, height_px=HEIGHT_PX, step_count=STEPS)

    types = load_catalog().job_types
    return Catalog(
        {
            name: replace(job_type, recipe=small(job_type.recipe)) if job_type.kind is Kind.SDXL else job_type
            for name, job_type in types.items()
        }
    )


CATALOG = small_catalog()
BUCKETS = [job_type.bucket for job_type in CATALOG.job_types.values()]


@dataclass
class World:
    """A running gateway and what it stands on. Nobody answers for WAN, so that its jobs wait; there is no enhancer."""

    url: str
    grpc_address: str
    app: FastAPI
    server: Server
    gateway: Gateway
    front: Front
    store: SwitchedStore
    renderer: Renderer
    stack: AsyncExitStack

    def driver(self, name: str, user: str, **claims: Any) -> Driver:
        """How `user` calls, over `rest` or `grpc`; claims change their token."""
        return self.driver_with(name, f"Bearer {fronts.token(user, **claims)}")

    def driver_with(self, name: str, authorization: str | None) -> Driver:
        """How somebody calls who shows this, or nothing."""
        if name == "rest":
            client = self.http(authorization)
            self.stack.push_async_callback(client.aclose)
            return RestDriver(client)
        channel = self.channel()
        self.stack.push_async_callback(channel.close)
        return RpcDriver(channel, authorization)

    def http(self, authorization: str | None) -> httpx.AsyncClient:
        """A client of the REST API; its caller closes it."""
        headers = {} if authorization is None else {"Authorization": authorization}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def channel(self) -> grpc.aio.Channel:
        """A channel to the gRPC API; its caller closes it."""
        return grpc.aio.insecure_channel(self.grpc_address, options=[("grpc.use_local_subchannel_pool", 1)])


@asynccontextmanager
async def open_world(dsn: str, renderer: Renderer, **values: Any) -> AsyncIterator[World]:
    """Run a gateway on a database and a renderer; settings can be changed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    store = SwitchedStore(renderer.store._root, UrlSigner(URL_SECRET, url))
    settings = fronts.settings(
        **{
            "database_url": dsn,
            "renderers_sdxl": f"127.0.0.1:{renderer.server.port}",
            # Port 9 is for what is thrown away: nobody listens there.
            "renderers_wan": "127.0.0.1:9",
            "lease_s": 1,
            "grpc_port": 0,
            "metrics_port": 0,
            "drain_grace_s": 1,
            **values,
        }
    )
    server = Server(settings, name="gateway", require_service_token=False)
    async with open_gateway(settings, store) as gateway:
        front = Front.over(gateway, catalog=CATALOG, store=store, settings=settings)
        add_services(server, front)
        app = create_rest_app(front)
        observed = Observed(app, registry=server.registry, traces=server.traces)
        rest = _Uvicorn(uvicorn.Config(observed, log_config=None, access_log=False, timeout_graceful_shutdown=1))
        await server.start()
        for service in SERVICES:
            server.set_serving(service, True)
        serving = asyncio.create_task(rest.serve([listener]))
        try:
            async with AsyncExitStack() as callers:
                yield World(url, f"127.0.0.1:{server.port}", app, server, gateway, front, store, renderer, callers)
        finally:
            gateway.drain()
            gateway.close_watches()
            rest.should_exit = True
            await serving
            await server.drain()
    await store.close()
