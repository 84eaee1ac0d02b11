from __future__ import annotations

from collections.abc import Iterator

import pytest

from ourvidz import Client
from support.file_server import FileServer, file_server
from support.scripted_jobs import ScriptedJobs, served


@pytest.fixture
def service() -> Iterator[ScriptedJobs]:
    with served(ScriptedJobs()) as jobs:
        yield jobs
        jobs.assert_all_asked_for()


@pytest.fixture
def client(service: ScriptedJobs) -> Iterator[Client]:
    with Client(service.address, "a.b.c") as client:
        yield client


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
