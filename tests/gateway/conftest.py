"""The gateway's own parts on a real database."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from ourvidz_gateway.database import Database, migrate, open_database
from ourvidz_gateway.gateway import Gateway, open_gateway
from support import fronts
from support.jobs import Bench
from support.renderer import Renderer, serving

Open = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A database with the schema."""
    await migrate(dsn)
    async with open_database(dsn) as database:
        yield database


@pytest.fixture
def bench(database: Database) -> Bench:
    """Shortcuts to put jobs, slots and sessions into the database."""
    return Bench(database)


@pytest.fixture
async def renderer(tmp_path) -> AsyncIterator[Renderer]:
    """A renderer that can render, with an engine that only paints."""
    async with serving(tmp_path) as renderer:
        await renderer.ready()
        yield renderer


@pytest.fixture
def open_one(dsn: str, renderer: Renderer) -> Open:
    """Open a gateway on the test's database and renderer; settings can be changed."""

    def opened(**values: object) -> AbstractAsyncContextManager[Gateway]:
        stated = {
            "database_url": dsn,
            "renderers_sdxl": f"127.0.0.1:{renderer.server.port}",
            "lease_s": 1,
            **values,
        }
        return open_gateway(fronts.settings(**stated), renderer.store)

    return opened


@pytest.fixture
async def gateway(database: Database, open_one: Open) -> AsyncIterator[Gateway]:
    """A gateway with one renderer."""
    async with open_one() as gateway:
        yield gateway
