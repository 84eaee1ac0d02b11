"""A cleaner on a real database and a real store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ourvidz_gateway.cleaner import Cleaner
from ourvidz_gateway.database import Database
from support.cleaners import cleaner_of
from support.renderer import SwitchedStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SwitchedStore]:
    store = SwitchedStore(tmp_path / "objects")
    yield store
    await store.close()


@pytest.fixture
def cleaner(database: Database, store: SwitchedStore) -> Cleaner:
    return cleaner_of(database, store)
