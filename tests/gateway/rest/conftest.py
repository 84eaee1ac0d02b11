"""The REST front over jobs in memory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from ourvidz_gateway.rest import create_rest_app
from support import fronts
from support.memory_jobs import MemoryJobs

TOKEN = {"Authorization": f"Bearer {fronts.token('alice')}"}


@pytest.fixture
def jobs() -> MemoryJobs:
    return MemoryJobs()


@pytest.fixture
def app(jobs: MemoryJobs, tmp_path: Path) -> FastAPI:
    return create_rest_app(fronts.front(jobs, tmp_path / "objects"))


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client that is signed in as alice."""
    async with httpx.AsyncClient(
        # As over a wire: what the app raises is answered, not thrown at the test.
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url="http://gateway",
        headers=TOKEN,
    ) as client:
        yield client


@pytest.fixture
async def served(app) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app on a real port, where a stream is read as it comes."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # uvicorn has no event for it
        await asyncio.sleep(0)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=TOKEN) as client:
        yield client
    server.should_exit = True
    await serving
