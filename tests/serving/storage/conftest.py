"""One and the same store, as a folder and as an S3 server."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from ourvidz_gateway.rest.objects import objects_router
from ourvidz_serving.storage import LocalStore, ObjectStore, StorageSettings, open_store
from support.s3 import S3Server

PUBLIC_URL = "http://objects.test"


@pytest.fixture
def local_settings(tmp_path: Path) -> StorageSettings:
    return StorageSettings(kind="local", path=tmp_path / "objects", public_url=PUBLIC_URL, signing_secret="s" * 32)


@pytest.fixture(params=["local", "s3"])
def settings(request: pytest.FixtureRequest) -> StorageSettings:
    if request.param == "local":
        return request.getfixturevalue("local_settings")
    server: S3Server = request.getfixturevalue("s3_server")
    return server.settings()


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[StorageSettings], ObjectStore]]:
    """Opens stores, and closes them after the test."""
    stores: list[ObjectStore] = []

    def open_one(settings: StorageSettings) -> ObjectStore:
        stores.append(open_store(settings))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()


@pytest.fixture
def store(settings: StorageSettings, opened: Callable[[StorageSettings], ObjectStore]) -> ObjectStore:
    return opened(settings)


@pytest.fixture
def bucket() -> str:
    """A bucket that nobody has used yet."""
    return f"test-{uuid4().hex}"


@pytest.fixture
async def browser(store: ObjectStore) -> AsyncIterator[httpx.AsyncClient]:
    """Fetches URLs: those of a local store from the gateway's route, all others from the network."""
    mounts = {}
    if isinstance(store, LocalStore):
        app = FastAPI()
        app.include_router(objects_router(store))
        mounts[PUBLIC_URL] = httpx.ASGITransport(app)
    async with httpx.AsyncClient(mounts=mounts) as client:
        yield client
