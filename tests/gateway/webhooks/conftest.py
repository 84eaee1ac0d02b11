"""A sender, and a receiver of what it sends."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from ourvidz_gateway.database import Database
from ourvidz_gateway.webhooks import WebhookSender
from ourvidz_serving.storage import LocalStore
from support.receiver import Receiver, receiver
from support.senders import sender, store_in


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return store_in(tmp_path / "objects")


@pytest.fixture
def make(database: Database, store: LocalStore) -> Callable[..., WebhookSender]:
    """Make a sender that may call the given receivers for jobs."""
    return partial(sender, database, store)


@pytest.fixture
async def hooks() -> AsyncIterator[Receiver]:
    async with receiver() as hooks:
        yield hooks
