"""A server with every part real, and services that do in each call what a test says."""

# the contracts name the methods

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from ourvidz.api.assets.v1 import assets_pb2_grpc
from ourvidz.api.enhance.v1 import enhance_pb2, enhance_pb2_grpc
from ourvidz_serving.channel import open_channel
from ourvidz_serving.server import Server
from ourvidz_serving.settings import ServerSettings

ENHANCE = "ourvidz.api.enhance.v1.EnhanceService"
ASSETS = "ourvidz.api.assets.v1.AssetService"


class Scripted(enhance_pb2_grpc.EnhanceServiceServicer, assets_pb2_grpc.AssetServiceServicer):
    """Answers UNIMPLEMENTED but for the methods that a test scripts, one for each kind of call."""

    def __init__(self) -> None:
        self.get: Callable[[Any, Any], Awaitable[Any]]
        self.enhance: Callable[[Any, Any], AsyncIterator[Any]]
        self.upload: Callable[[Any, Any], Awaitable[Any]]

    async def GetEnhancer(self, request, context):
        return await self.get(request, context)

    async def Enhance(self, request, context):
        async with aclosing(self.enhance(request, context)) as responses:
            async for response in responses:
                yield response

    async def UploadReferenceImage(self, request_iterator, context):
        return await self.upload(request_iterator, context)


@dataclass
class Running:
    """A started server and a channel to it."""

    server: Server
    scripted: Scripted
    channel: grpc.aio.Channel

    @property
    def enhancer(self) -> enhance_pb2_grpc.EnhanceServiceStub:
        return enhance_pb2_grpc.EnhanceServiceStub(self.channel)

    @property
    def assets(self) -> assets_pb2_grpc.AssetServiceStub:
        return assets_pb2_grpc.AssetServiceStub(self.channel)

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        return sum(
            sample.value
            for family in self.server.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@asynccontextmanager
async def serve(
    *, show_token: str | None = None, require_service_token: bool = False, **settings: Any
) -> AsyncIterator[Running]:
    """Run a scripted server with these settings, and open a channel that shows this token."""
    server = Server(ServerSettings(**settings), name="scripted", require_service_token=require_service_token)
    scripted = Scripted()
    enhance_pb2_grpc.add_EnhanceServiceServicer_to_server(scripted, server.grpc)
    assets_pb2_grpc.add_AssetServiceServicer_to_server(scripted, server.grpc)
    for service in (ENHANCE, ASSETS):
        server.add_service(service)
    await server.start()
    channel = open_channel(f"127.0.0.1:{server.port}", service_token=show_token)
    try:
        yield Running(server, scripted, channel)
    finally:
        await channel.close()
        if server.metrics_port:  # not drained by the test itself
            server.stop()
            server.stop()
            await server.drain()


def piece(text: str) -> enhance_pb2.EnhanceResponse:
    return enhance_pb2.EnhanceResponse(piece=enhance_pb2.Piece(text=text))


async def read_all(stream: Any, into: list[Any] | None = None) -> list[Any]:
    """Return all responses of a stream; `into` also keeps those that came before an error."""
    into = [] if into is None else into
    async for response in stream:
        into.append(response)  # an error must not lose what came before it
    return into
