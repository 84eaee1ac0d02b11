"""Users' pictures: uploaded and followed, made and deleted, over REST and over gRPC."""

from __future__ import annotations

import asyncio
import io
from urllib.parse import unquote, urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from contract.driver import Driver, Refused, made
from contract.world import BUCKETS, HEIGHT_PX, WIDTH_PX, World, open_world
from ourvidz_gateway.references import BUCKET
from support.pictures import file_of, halves, turned_jpeg
from support.renderer import Renderer

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def opened(url: str) -> httpx.Response:
    """What anybody is answered who has a URL."""
    async with httpx.AsyncClient(trust_env=False) as anybody:
        return await anybody.get(url)


async def until_gone(world: World, url: str) -> None:
    """Wait until the cleaner has come by; then nobody is let at the object any more."""
    bucket, key = unquote(urlsplit(url).path.removeprefix("/objects/")).split("/", 1)
    async with asyncio.timeout(60):
        while key in await world.store.list(bucket, key):
            await asyncio.sleep(0.05)
    assert (await opened(url)).status_code == 404


async def test_an_uploaded_picture_is_kept_as_it_came_and_told_upright(driver: Driver):
    data = turned_jpeg()
    image = await driver.upload(data, "cat.jpg")
    assert (image.mime_type, image.width_px, image.height_px, image.size_bytes) == ("image/jpeg", 48, 64, len(data))
    answer = await opened(image.url)
    assert (answer.content, answer.headers["content-type"]) == (data, "image/jpeg")


async def test_uploads_are_listed_newest_first_in_pages(driver: Driver):
    uploaded = [await driver.upload(file_of(halves(64 + index))) for index in range(3)]
    first, token = await driver.references(page_size=2)
    second, end = await driver.references(page_size=2, page_token=token)
    assert [image.id for image in (*first, *second)] == [image.id for image in reversed(uploaded)]
    assert end == ""
    assert [image.width_px for image in first] == [66, 65]


async def test_a_job_follows_what_was_uploaded_by_the_url_that_came_back(driver: Driver):
    image = await driver.upload(file_of(halves()))
    job = await made(driver, prompt="echo", reference_image_url=image.url, reference_type="composition")
    assert (job.state, job.metadata["reference_image_url"]) == ("completed", image.url)
    [asset] = job.assets
    pixels = np.asarray(Image.open(io.BytesIO((await opened(asset.url)).content)))
    # The engine echoes what it was shown.
    assert (pixels == np.asarray(halves(WIDTH_PX, HEIGHT_PX))).all()


async def test_a_url_whose_signature_has_expired_is_still_a_reference(
    world_dsn: str, renderer: Renderer, front: str, user: str
):
    async with open_world(world_dsn, renderer, url_expiry=1) as forgetful:
        driver = forgetful.driver(front, user)
        image = await driver.upload(file_of(halves()))
        async with asyncio.timeout(30):
            while (await opened(image.url)).status_code != 403:
                await asyncio.sleep(0.1)
        job = await made(driver, prompt="echo", reference_image_url=image.url)
        assert job.state == "completed"
        assert "The reference image" not in str(job.warnings)
        assert job.warnings == ["painted, not rendered"]


async def test_what_a_job_made_is_a_reference_for_the_next(driver: Driver):
    first = await made(driver, seed=1)
    second = await made(driver, prompt="echo", reference_image_url=first.assets[0].url)
    contents = [(await opened(job.assets[0].url)).content for job in (first, second)]
    one, other = (np.asarray(Image.open(io.BytesIO(content))) for content in contents)
    assert (one == other).all()


async def test_assets_are_listed_with_what_their_job_was(driver: Driver):
    job = await made(driver, image_count=3, seed=7, project_id="p")
    other = await made(driver)
    files, token = await driver.assets()
    assert token == ""
    assert {file.job_id for file in files} == {job.id, other.id}
    of_job = {file.id: file for file in files if file.job_id == job.id}
    assert set(of_job) == {asset.id for asset in job.assets}
    for index, asset in enumerate(job.assets):
        file = of_job[asset.id]
        assert (file.job_type, file.mime_type, file.project_id) == ("sdxl_image_fast", "image/png", "p")
        assert (file.width_px, file.height_px, file.seed, file.duration_s) == (WIDTH_PX, HEIGHT_PX, 7 + index, None)
        assert file.size_bytes == len((await opened(file.url)).content)
    assert files == sorted(files, key=lambda file: file.created_at, reverse=True)


async def test_assets_are_filtered_by_type_and_project(driver: Driver):
    fast = await made(driver, project_id="p")
    high = await made(driver, job_type="sdxl_image_high", project_id="q")

    async def jobs(**query: str) -> list[str]:
        return [file.job_id for file in (await driver.assets(**query))[0]]

    assert await jobs() == [high.id, fast.id]
    assert await jobs(job_type="sdxl_image_high") == [high.id]
    assert await jobs(project_id="p") == [fast.id]
    assert await jobs(project_id="p", job_type="sdxl_image_high") == []


async def test_pages_of_assets_show_each_once(driver: Driver):
    job = await made(driver, image_count=6)
    shown, token = [], ""
    while True:
        files, token = await driver.assets(page_size=4, page_token=token)
        shown += [file.id for file in files]
        if not token:
            break
    assert sorted(shown) == sorted(asset.id for asset in job.assets)


async def test_a_deleted_asset_is_gone_and_its_job_stays(driver: Driver, world: World):
    job = await made(driver, image_count=3)
    gone = job.assets[1]
    await driver.delete_asset(gone.id)
    after = await driver.get(job.id)
    assert (after.state, [asset.id for asset in after.assets]) == (
        "completed",
        [job.assets[0].id, job.assets[2].id],
    )
    assert gone.id not in [file.id for file in (await driver.assets())[0]]
    with pytest.raises(Refused) as again:
        await driver.delete_asset(gone.id)
    assert again.value.reason == "ASSET_NOT_FOUND"
    await until_gone(world, gone.url)
    for kept in after.assets:
        assert (await opened(kept.url)).status_code == 200


async def test_a_deleted_upload_is_gone_and_no_reference_any_more(driver: Driver, world: World):
    image = await driver.upload(file_of(halves()))
    await driver.delete_reference(image.id)
    assert await driver.references() == ([], "")
    for call in (driver.delete_reference(image.id), driver.create(reference_image_url=image.url)):
        with pytest.raises(Refused) as refused:
            await call
        assert refused.value.reason in ("REFERENCE_IMAGE_NOT_FOUND", "INVALID_REFERENCE_IMAGE")
    await until_gone(world, image.url)


async def test_what_was_deleted_while_storage_was_away_goes_when_it_is_back(driver: Driver, world: World):
    image, job = await driver.upload(file_of(halves())), await made(driver)
    urls = (image.url, job.assets[0].url)
    world.store.failed.clear()
    world.store.down = True
    try:
        await driver.delete_reference(image.id)
        await driver.delete_asset(job.assets[0].id)
        await asyncio.wait_for(world.store.failed.wait(), 30)
        assert {(await opened(url)).status_code for url in urls} == {200}
    finally:
        world.store.down = False
    again = await driver.upload(file_of(halves()))
    # Another deletion wakes the cleaner; it comes by itself, too, only later.
    await driver.delete_reference(again.id)
    for url in (*urls, again.url):
        await until_gone(world, url)


async def test_nothing_is_left_of_a_user_who_deletes_all(driver: Driver, world: World, user: str):
    await driver.upload(file_of(halves()))
    await made(driver)
    for image in (await driver.references())[0]:
        await driver.delete_reference(image.id)
    for file in (await driver.assets())[0]:
        await driver.delete_asset(file.id)
    async with asyncio.timeout(30):
        while [name async for name in pictures_of(world, user)]:
            await asyncio.sleep(0.05)


async def pictures_of(world: World, user: str):
    """The keys of a user's pictures in the store."""
    for bucket in (BUCKET, *BUCKETS):
        for key in await world.store.list(bucket, user):
            if not key.endswith(".json"):
                yield key
