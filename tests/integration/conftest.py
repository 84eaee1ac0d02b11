"""Real processes: one stack that most tests share, and the folder in which all keep the miniature models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.receiver import SECRET, Receiver, receiving
from integration.stack import Stack, running_stack
from support.browser import page

__all__ = ["model_cache", "page", "stack"]


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the miniatures are built once for all servers."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """What the stack's operator lets it call when jobs have ended."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, model_cache: Path, receiver: Receiver) -> Iterator[Stack]:
    """A running stack. Tests leave no job of theirs behind in its queue, and end none of its processes."""
    webhooks = {"OURVIDZ_WEBHOOK_URL": receiver.url, "OURVIDZ_WEBHOOK_SECRET": SECRET}
    with running_stack(tmp_path_factory.mktemp("stack"), model_cache, **webhooks) as stack:
        yield stack
