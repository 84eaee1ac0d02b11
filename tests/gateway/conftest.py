"""The gateway's own parts on a real database."""

from collections.abc import AsyncIterator

import pytest

from ourvidz_gateway.database import Database, migrate, open_database
from support.jobs import Bench
from support.renderer import Renderer, serving


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
