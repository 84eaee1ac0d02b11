"""The REST front over jobs in memory."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from ourvidz_gateway.rest import create_rest_app
from support import fronts
from support.memory_jobs import MemoryJobs


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
        headers={"Authorization": f"Bearer {fronts.token('alice')}"},
    ) as client:
        yield client
