"""How the supervisor learns that a server it started is healthy. Each check returns once it is, and only then."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc.aio
import httpx

from ourvidz.local.folder import DataFolder

BETWEEN_LOOKS_S = 0.2
"""Pauses while a server starts; nothing is looked at once it is healthy."""


async def grpc_serving(address: str) -> None:
    """Wait until the gRPC server at `host:port` says that it serves, as its own health service tells it."""
    # Only servers need the health stubs; the base install comes without them.
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while True:
            # A stream that breaks tells nothing but that the server is not up yet, or went away again.
            with suppress(grpc.aio.AioRpcError):
                async for answer in health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            await asyncio.sleep(BETWEEN_LOOKS_S)


async def http_ready(url: str) -> None:
    """Wait until the URL answers 200."""
    async with httpx.AsyncClient(trust_env=False) as http:
        while True:
            with suppress(httpx.TransportError):
                if (await http.get(url)).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(BETWEEN_LOOKS_S)


async def postgres_ready(folder: DataFolder, keeper: int) -> str:
    """Wait until the database that the process `keeper` keeps takes connections; return its DSN."""
    while True:
        try:
            pid, dsn = folder.postgres_ready.read_text().split()
        except FileNotFoundError:
            pass
        else:
            # What a killed keeper left behind says nothing about this one.
            if int(pid) == keeper:
                return dsn
        await asyncio.sleep(BETWEEN_LOOKS_S)
