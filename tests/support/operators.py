"""Operators of the tests, and the gRPC service that is theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from ourvidz import rpc_status
from ourvidz.api.admin.v1 import admin_pb2_grpc
from ourvidz_gateway.front import Front
from ourvidz_gateway.rpc import add_services
from ourvidz_serving.server import Server
from support import fronts
from support.memory_jobs import MemoryJobs
from support.senders import SECRET

UNKNOWN = "0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53"
NO_IDS = [UNKNOWN, "", "nonsense", UNKNOWN.replace("-", ""), "a\0"]
OPERATOR_URL = "https://operator.example.com/hooks"

OPERATOR = (("authorization", f"Bearer {fronts.token('olga', role='service_role')}"),)


@asynccontextmanager
async def serving(front: Front) -> AsyncIterator[admin_pb2_grpc.AdminServiceStub]:
    """Serve a front, and yield a stub that has no token of its own."""
    server = Server(front.settings, name="gateway", require_service_token=False)
    add_services(server, front)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield admin_pb2_grpc.AdminServiceStub(channel)
    await server.drain()


def front_of(folder: Path, database: Any) -> Front:
    """A front over a real database, without jobs."""
    return fronts.front(
        MemoryJobs(),
        folder,
        database,
        grpc_port=0,
        metrics_port=0,
        webhook_url=OPERATOR_URL,
        webhook_secret=SECRET,
    )


async def refused(call: Awaitable[Any]) -> rpc_status.ParsedError:
    """How a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return rpc_status.parse(caught.value)
