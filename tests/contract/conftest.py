"""One gateway for each file of tests, since it takes seconds to start; tests keep apart by users of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from contract.driver import Driver
from contract.world import BUCKETS, World, open_world
from support.postgres import Postgres
from support.renderer import Renderer, serving

FRONTS = ("rest", "grpc")


@pytest.fixture(scope="module")
def world_dsn(postgres: Postgres) -> Iterator[str]:
    """The database of the file's gateway."""
    with postgres.database() as dsn:
        yield dsn


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def renderer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Renderer]:
    """A renderer for SDXL's job types, with an engine that only paints."""
    folder: Path = tmp_path_factory.mktemp("contract")
    async with serving(folder, buckets=BUCKETS) as renderer:
        await renderer.ready()
        yield renderer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(world_dsn: str, renderer: Renderer) -> AsyncIterator[World]:
    """A gateway with the settings that it has by default."""
    async with open_world(world_dsn, renderer) as world:
        yield world


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest) -> str:
    """Which front is called: every behaviour is asked of both."""
    name: str = request.param
    return name


@pytest.fixture
def user() -> str:
    """Somebody whom no other test knows."""
    return f"user-{uuid4().hex}"


@pytest_asyncio.fixture(loop_scope="module")
async def driver(world: World, front: str, user: str) -> Driver:
    """How that user calls."""
    return world.driver(front, user)


@pytest_asyncio.fixture(loop_scope="module")
async def other(world: World, front: str) -> Driver:
    """How somebody else calls."""
    return world.driver(front, f"other-{uuid4().hex}")
