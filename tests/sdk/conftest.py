from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ourvidz import AdminClient, AsyncAdminClient, AsyncClient, Client
from support.awaited import Awaited
from support.file_server import FileServer, file_server
from support.scripted_jobs import ScriptedJobs, served


@pytest.fixture
def service() -> Iterator[ScriptedJobs]:
    with served(ScriptedJobs()) as jobs:
        yield jobs
        jobs.assert_all_asked_for()


@pytest.fixture(params=["waiting", "awaited"])
def open_client(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    """Make clients, each test once with `Client` and once with `AsyncClient`."""
    yield from _opening(request, Client, AsyncClient)


@pytest.fixture
def client(service: ScriptedJobs, open_client: Callable[..., Client]) -> Client:
    return open_client(service.address, "a.b.c")


@pytest.fixture(params=["waiting", "awaited"])
def admin(request: pytest.FixtureRequest, service: ScriptedJobs) -> Iterator[AdminClient]:
    """An operator's client, each test once with `AdminClient` and once with `AsyncAdminClient`."""
    for make in _opening(request, AdminClient, AsyncAdminClient):
        yield make(service.address, "o.p.s")


def _opening(request: pytest.FixtureRequest, waiting: Any, awaited: Any) -> Iterator[Callable[..., Any]]:
    with ExitStack() as opened:
        if request.param == "waiting":
            yield lambda *args, **options: opened.enter_context(waiting(*args, **options))
            return
        runner = opened.enter_context(asyncio.Runner())
        yield lambda *args, **options: opened.enter_context(Awaited(awaited(*args, **options), runner))


@pytest.fixture
def files() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def environment(service: ScriptedJobs, files: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line reads, pointing at the scripted service."""
    monkeypatch.setenv("OURVIDZ_GRPC", service.address)
    monkeypatch.setenv("OURVIDZ_URL", files.url)
    monkeypatch.setenv("OURVIDZ_TOKEN", "a.b.c")
