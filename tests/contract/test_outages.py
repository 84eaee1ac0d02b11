"""What users are told while the database or the object storage is away, over REST and over gRPC."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from contract.belongings import WAITING
from contract.conftest import FRONTS
from contract.driver import Driver, Refused, made
from contract.refusals import CALLS, check, refusal
from contract.world import World, open_world
from support.pictures import file_of, halves
from support.postgres import running_postgres
from support.renderer import Renderer

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_while_the_database_is_stopped_every_call_says_when_to_ask_again(renderer: Renderer, own_postgres: Any):
    postgres, dsn = own_postgres
    async with open_world(dsn, renderer) as world:
        drivers = [world.driver(front, "alice") for front in FRONTS]
        for driver in drivers:
            await driver.create(WAITING)
        postgres.close()
        for driver in drivers:
            await until_queues_are_looked_at_anew(driver)
            for call in CALLS.values():
                check(await refusal(call(driver)), driver, "DATABASE_UNAVAILABLE")
        async with world.http(None) as anybody:
            assert (await anybody.get("/healthz")).status_code == 200
            ready = await anybody.get("/readyz")
            assert (ready.status_code, "retry-after" in ready.headers) == (503, True)


async def until_queues_are_looked_at_anew(driver: Driver) -> None:
    """Wait until the figures of before are too old to be told."""
    async with asyncio.timeout(30):
        while True:
            try:
                await driver.queues()
            except Refused:
                return
            await asyncio.sleep(0.1)


@pytest.fixture
def own_postgres():
    """A server that the test may stop, by `close`, and a database on it."""
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        postgres.execute("CREATE DATABASE outage")
        yield stack.pop_all(), urlunsplit(urlsplit(postgres.dsn)._replace(path="/outage"))


async def test_while_storage_is_away_uploads_say_when_to_ask_again_and_all_else_goes_on(world: World, driver: Driver):
    world.store.down = True
    try:
        check(await refusal(driver.upload(file_of(halves()))), driver, "STORAGE_UNAVAILABLE")
        assert await driver.references() == ([], "")
        job = await driver.get((await driver.create(WAITING)).id)
        assert job.state == "queued"
    finally:
        world.store.down = False
    await driver.upload(file_of(halves()))
    assert len((await driver.references())[0]) == 1


async def test_what_is_deleted_while_storage_is_away_is_gone_for_its_user_at_once(world: World, driver: Driver):
    image = await driver.upload(file_of(halves()))
    asset = (await made(driver)).assets[0]
    world.store.down = True
    try:
        await driver.delete_reference(image.id)
        await driver.delete_asset(asset.id)
        assert await driver.references() == ([], "")
        assert await driver.assets() == ([], "")
    finally:
        world.store.down = False
