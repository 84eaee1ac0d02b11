"""Every error of the reference, by its reason, over REST and over gRPC."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from contract.belongings import WAITING
from contract.driver import Driver
from contract.refusals import CALLS, SAID, check, refusal
from contract.world import CATALOG, World, open_world
from ourvidz_gateway.errors import BodyTooLarge, GatewayError
from ourvidz_serving.pictures import MAX_FILE_BYTES
from support import fronts
from support.pictures import BAD_FILES, file_of, halves
from support.renderer import Renderer

pytestmark = pytest.mark.asyncio(loop_scope="module")

ELSEWHERE = "https://storage.example.com/reference.jpg"


async def nothing_was_kept(driver: Driver) -> bool:
    return await driver.page() == ([], "") and await driver.credits() == (1000, 0)


def kinds_of(kind: type[GatewayError]) -> list[type[GatewayError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in kinds_of(sub))]


async def test_no_error_is_missing_from_the_table():
    kinds = kinds_of(GatewayError)[1:]
    assert {kind.reason for kind in kinds} == set(SAID)
    # A body that is too large is the one thing that gRPC has another word for.
    for kind in [kind for kind in kinds if kind is not BodyTooLarge]:
        said = SAID[kind.reason]
        assert (kind.http_status, kind.grpc_status, kind.flag) == (said.http, said.grpc, said.flag), kind
        assert (kind.default_retry_after_s is not None) == said.waits == kind.retryable, kind


BAD = {
    "a type that is not there": ("UNKNOWN_JOB_TYPE", {"job_type": "sdxl_image_slow"}, "job_type"),
    "no type": ("UNKNOWN_JOB_TYPE", {"job_type": ""}, "job_type"),
    "no prompt": ("INVALID_PROMPT", {"prompt": " "}, "prompt"),
    "a prompt too long": ("INVALID_PROMPT", {"prompt": "a" * 10_001}, "prompt"),
    "a prompt with NUL": ("INVALID_PROMPT", {"prompt": "a\0b"}, "prompt"),
    "two images": ("INVALID_QUANTITY", {"image_count": 2}, "image_count"),
    "three clips": ("INVALID_QUANTITY", {"job_type": WAITING, "image_count": 3}, "image_count"),
    "a seed below zero": ("INVALID_SEED", {"seed": -1}, "seed"),
    "a seed over 32 bits": ("INVALID_SEED", {"seed": 2**32}, "seed"),
    "a reference on another host": (
        "INVALID_REFERENCE_IMAGE",
        {"reference_image_url": ELSEWHERE},
        "reference_image_url",
    ),
    "a reference for a clip": (
        "INVALID_REFERENCE_IMAGE",
        {"job_type": WAITING, "reference_image_url": ELSEWHERE},
        "reference_image_url",
    ),
    "a start frame for a picture": (
        "INVALID_REFERENCE_IMAGE",
        {"start_reference_image_url": ELSEWHERE},
        "start_reference_image_url",
    ),
    "a strength over 1": ("INVALID_REFERENCE_IMAGE", {"reference_strength": 1.5}, "reference_strength"),
    "a strength below 0": ("INVALID_REFERENCE_IMAGE", {"reference_strength": -0.1}, "reference_strength"),
    "credits below the price": ("INVALID_REQUEST", {"credits": 0}, "credits"),
    "another type's bucket": ("INVALID_REQUEST", {"metadata": {"bucket": "video-fast"}}, "metadata.bucket"),
    "a project with a newline": ("INVALID_REQUEST", {"project_id": "a\nb"}, "project_id"),
    "a webhook nobody allowed": ("INVALID_REQUEST", {"webhook_url": "https://hooks.example.com/x"}, "webhook_url"),
    "too little time to start": ("INVALID_REQUEST", {"start_timeout_s": 0}, "start_timeout"),
    "a key too long": ("INVALID_REQUEST", {"key": "k" * 201}, "request_id"),
}

_REST_FIELDS = {
    "job_type": "jobType",
    "image_count": "metadata.num_images",
    "project_id": "projectId",
    "webhook_url": "webhookUrl",
    "start_timeout": "startTimeoutSeconds",
    "request_id": "Idempotency-Key",
    "metadata.bucket": "metadata.bucket",
}


def named(field: str, front: str) -> str:
    """How a field of CreateJobRequest is named by a front."""
    return field if front == "grpc" else _REST_FIELDS.get(field, f"metadata.{field}")


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_field_is_named_and_nothing_is_stored_or_charged(driver: Driver, name: str):
    reason, request, field = BAD[name]
    check(await refusal(driver.create(**request)), driver, reason, field=named(field, driver.front))
    assert await nothing_was_kept(driver)


async def test_an_unknown_type_lists_the_valid_ones(driver: Driver):
    refused = await refusal(driver.create("sdxl_image_slow"))
    check(refused, driver, "UNKNOWN_JOB_TYPE", says=", ".join(CATALOG.job_types))


async def test_a_prompt_that_the_policy_refuses_is_not_told_why(driver: Driver):
    refused = await refusal(driver.create(prompt="a nude twelve year old child"))
    check(refused, driver, "PROMPT_REFUSED", field=named("prompt", driver.front))
    assert not {"minor", "child", "nude", "twelve"} & set(refused.message.lower().split())
    assert await nothing_was_kept(driver)


async def test_a_type_without_any_renderer_is_refused_for_now(driver: Driver):
    check(await refusal(driver.create("image7b_fast_enhanced")), driver, "NO_RENDERER")
    assert await nothing_was_kept(driver)


async def test_credits_that_are_short_are_said_with_what_to_do(driver: Driver):
    refused = await refusal(driver.create(credits=1001))
    check(refused, driver, "INSUFFICIENT_CREDITS", says="credits")
    assert await nothing_was_kept(driver)


async def test_a_key_that_stands_for_another_request_is_a_conflict(driver: Driver):
    key = uuid4().hex
    await driver.create(WAITING, key=key)
    check(await refusal(driver.create(WAITING, "another", key=key)), driver, "IDEMPOTENCY_CONFLICT")


TOKENS = {
    "nothing": None,
    "no token": "Bearer",
    "rubbish": "Bearer x.y.z",
    "another scheme": "Basic YTpi",
    "a token signed with another secret": f"Bearer {fronts.token(secret='not the secret of the tests, but as long')}",
    "an expired token": f"Bearer {fronts.token(exp=datetime.now(UTC) - timedelta(minutes=5))}",
    "a token for others": f"Bearer {fronts.token(aud='somebody else')}",
    "a token that never expires": f"Bearer {fronts.token(exp=None)}",
    "a token of nobody": f"Bearer {fronts.token(sub=None)}",
}


@pytest.mark.parametrize("call", CALLS)
async def test_whoever_shows_no_token_is_told_nothing(world: World, front: str, call: str):
    driver = world.driver_with(front, None)
    check(await refusal(CALLS[call](driver)), driver, "UNAUTHENTICATED")


@pytest.mark.parametrize("name", TOKENS)
async def test_a_token_that_cannot_be_trusted_opens_nothing(world: World, front: str, name: str):
    driver = world.driver_with(front, TOKENS[name])
    check(await refusal(driver.page()), driver, "UNAUTHENTICATED")


NOT_FOUND = {
    "get": "JOB_NOT_FOUND",
    "cancel": "JOB_NOT_FOUND",
    "watch": "JOB_NOT_FOUND",
    "delete a reference": "REFERENCE_IMAGE_NOT_FOUND",
    "delete an asset": "ASSET_NOT_FOUND",
}


@pytest.mark.parametrize("call", NOT_FOUND)
async def test_what_is_not_there_is_not_found(driver: Driver, call: str):
    check(await refusal(CALLS[call](driver)), driver, NOT_FOUND[call])


@pytest.mark.parametrize("bad", ["x", "{0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53}", "%00", "é" * 50, "1" * 5000])
async def test_an_id_that_is_none_is_not_found(driver: Driver, bad: str):
    for call in (driver.get, driver.cancel):
        check(await refusal(call(bad)), driver, "JOB_NOT_FOUND")
    check(await refusal(anext(driver.watch(bad))), driver, "JOB_NOT_FOUND")
    check(await refusal(driver.delete_asset(bad)), driver, "ASSET_NOT_FOUND")
    check(await refusal(driver.delete_reference(bad)), driver, "REFERENCE_IMAGE_NOT_FOUND")


@pytest.mark.parametrize("listing", ["page", "assets", "references"])
async def test_a_bad_page_is_refused(driver: Driver, listing: str):
    pages = getattr(driver, listing)
    for query in ({"page_token": "rubbish"}, {"page_token": "WzFd"}, {"page_size": 101}, {"page_size": -1}):
        check(await refusal(pages(**query)), driver, "INVALID_REQUEST", field=next(iter(query)))


async def test_a_filter_for_a_type_that_is_not_there_lists_the_valid_ones(driver: Driver):
    for pages in (driver.page, driver.assets):
        check(
            await refusal(pages(job_type="sdxl")), driver, "UNKNOWN_JOB_TYPE", says="sdxl_image_fast", field="job_type"
        )


async def test_a_filter_with_a_control_character_is_refused(driver: Driver):
    for pages in (driver.page, driver.assets):
        check(await refusal(pages(project_id="a\0b")), driver, "INVALID_REQUEST", field="project_id")


async def test_an_event_number_that_is_none_is_refused(driver: Driver):
    created = await driver.create(WAITING)
    check(await refusal(anext(driver.watch(created.id, after=-1))), driver, "INVALID_REQUEST")


@pytest.mark.parametrize("name", BAD_FILES)
async def test_a_file_that_is_no_picture_is_refused(driver: Driver, name: str):
    check(await refusal(driver.upload(BAD_FILES[name])), driver, "INVALID_REFERENCE_IMAGE", field="file")
    assert await driver.references() == ([], "")


async def test_a_file_over_10_MB_is_refused(driver: Driver):
    check(await refusal(driver.upload(b"\x89PNG" + bytes(MAX_FILE_BYTES))), driver, "FILE_TOO_LARGE")


async def test_a_user_whose_pictures_would_be_too_many_is_refused(
    world_dsn: str, renderer: Renderer, front: str, user: str
):
    data = file_of(halves())
    async with open_world(world_dsn, renderer, reference_quota_bytes=len(data) + 1) as small:
        driver = small.driver(front, user)
        kept = await driver.upload(data)
        check(await refusal(driver.upload(data)), driver, "STORAGE_QUOTA_EXCEEDED")
        assert [image.id for image in (await driver.references())[0]] == [kept.id]
        await driver.delete_reference(kept.id)
        await driver.upload(data)


async def test_a_user_with_too_many_open_jobs_is_told_to_wait(
    world_dsn: str, renderer: Renderer, front: str, user: str
):
    async with open_world(world_dsn, renderer, user_open_jobs=2) as strict:
        driver = strict.driver(front, user)
        first, _ = [await driver.create(WAITING) for _ in range(2)]
        check(await refusal(driver.create(WAITING)), driver, "RATE_LIMITED")
        assert await driver.credits() == (998, 2)
        await driver.cancel(first.id)
        await driver.create(WAITING)


async def test_a_user_who_asks_too_often_is_told_to_wait(world_dsn: str, renderer: Renderer, front: str, user: str):
    async with open_world(world_dsn, renderer, user_jobs_per_minute=0.01, user_job_burst=2) as strict:
        driver = strict.driver(front, user)
        for _ in range(2):
            await driver.create(WAITING)
        refused = await refusal(driver.create(WAITING))
        check(refused, driver, "RATE_LIMITED")
        assert 60 < refused.retry_after_s <= 6000
        await strict.driver(front, f"{user}'s neighbour").create(WAITING)


async def test_a_full_queue_takes_no_more_and_says_when_to_ask_again(
    dsn: str, renderer: Renderer, front: str, user: str
):
    async with open_world(dsn, renderer, queue_limit=1) as small:
        driver = small.driver(front, user)
        first = await driver.create(WAITING)
        async with asyncio.timeout(30):
            # How full a queue is is known to a second.
            while (waiting := (await driver.queues())[0]) < 1:
                await asyncio.sleep(0.05)
        assert waiting == 1
        check(await refusal(driver.create(WAITING)), driver, "QUEUE_FULL")
        assert (await driver.create(key=None)).job_type == "sdxl_image_fast"
        assert [job.id for job in (await driver.page(job_type=WAITING))[0]] == [first.id]
