"""Users' jobs, from the request to the result: asked of REST and of gRPC in the same words."""

from __future__ import annotations

import asyncio
import io
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest
from PIL import Image

from contract.belongings import WAITING
from contract.driver import Driver, EventView, Refused, ended, made
from contract.world import HEIGHT_PX, STEPS, WIDTH_PX, World
from support.fake_engine import paint

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_accepted_job_is_told_with_all_that_was_asked_for(driver: Driver, user: str):
    created = await driver.create(
        prompt="  a lighthouse at dusk\n",
        negative_prompt="blurry",
        image_count=3,
        seed=12345,
        metadata={"tags": ["a", {"b": None}], "scene": 7},
    )
    assert str(UUID(created.id)) == created.id
    assert (created.user_id, created.job_type, created.state) == (user, "sdxl_image_fast", "queued")
    assert created.model_variant == "sdxl"
    assert created.queue_length >= 1
    assert created.metadata == {
        "prompt": "a lighthouse at dusk",
        "negative_prompt": "blurry",
        "num_images": 3,
        "seed": 12345,
        "tags": ["a", {"b": None}],
        "scene": 7,
    }
    await driver.cancel(created.id)


async def test_a_completed_job_has_its_assets_its_seed_and_its_times(driver: Driver, user: str, world: World):
    job = await made(driver, image_count=3, seed=12345)
    assert (job.state, job.stage, job.progress, job.error_message) == ("completed", None, 100, None)
    assert (job.user_id, job.job_type, job.credits) == (user, "sdxl_image_fast", 1)
    assert job.warnings == ["painted, not rendered"]
    assert job.created_at <= job.started_at <= job.ended_at
    assert job.metadata["seed"] == 12345
    assert len({asset.id for asset in job.assets}) == 3
    async with httpx.AsyncClient(trust_env=False) as anybody:
        for index, asset in enumerate(job.assets):
            answer = await anybody.get(asset.url)
            assert answer.headers["content-type"] == "image/png"
            pixels = np.asarray(Image.open(io.BytesIO(answer.content)))
            assert (pixels == paint(12345 + index, WIDTH_PX, HEIGHT_PX)).all()


async def test_image_i_of_a_job_is_what_its_seed_alone_makes(driver: Driver):
    batch = await made(driver, image_count=3, seed=2**32 - 2)
    alone = await made(driver, image_count=1, seed=0)
    async with httpx.AsyncClient(trust_env=False) as anybody:
        third, single = [await anybody.get(job.assets[-1].url) for job in (batch, alone)]
    assert third.content == single.content


async def test_a_seed_that_nobody_gave_is_drawn_at_once_and_told(driver: Driver):
    created = await driver.create()
    seed = created.metadata["seed"]
    assert 0 <= seed < 2**32
    job = await ended(driver, created.id)
    assert job.metadata["seed"] == seed


async def test_ids_of_the_callers_own_are_kept_and_returned(driver: Driver):
    ids = {"project_id": "p-1", "video_id": "v-1", "image_id": "Ü 7"}
    created = await driver.create(WAITING, **ids)
    for job in (await driver.get(created.id), (await driver.page())[0][0]):
        assert {name: getattr(job, name) for name in ids} == ids


async def test_lists_are_filtered_by_all_that_a_job_can_be_told_apart_by(driver: Driver):
    first = await driver.create(WAITING, project_id="p", video_id="v")
    second = await driver.create("video_high", project_id="p", image_id="i")
    third = await made(driver, project_id="q")
    await driver.cancel(second.id)

    async def found(**query: str) -> list[str]:
        return [job.id for job in (await driver.page(**query))[0]]

    assert await found() == [third.id, second.id, first.id]
    assert await found(project_id="p") == [second.id, first.id]
    assert await found(video_id="v") == [first.id]
    assert await found(image_id="i") == [second.id]
    assert await found(job_type=WAITING) == [first.id]
    assert await found(state="queued") == [first.id]
    assert await found(state="cancelled") == [second.id]
    assert await found(state="completed", project_id="q") == [third.id]
    assert await found(state="failed") == []
    assert await found(project_id="p", job_type="video_high") == [second.id]
    assert await found(project_id="nobody's") == []


async def test_pages_show_each_job_once_newest_first(driver: Driver):
    ids = [(await driver.create(WAITING)).id for _ in range(5)]
    pages, token = [], ""
    while True:
        jobs, token = await driver.page(page_size=2, page_token=token)
        pages.append([job.id for job in jobs])
        if not token:
            break
    assert pages == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]


async def test_a_last_page_that_is_full_has_no_next(driver: Driver):
    for _ in range(2):
        await driver.create(WAITING)
    jobs, token = await driver.page(page_size=2)
    assert (len(jobs), token) == (2, "")


async def test_the_same_key_and_request_answer_with_the_same_job(driver: Driver):
    key = uuid4().hex
    replies = await asyncio.gather(*[driver.create(WAITING, key=key, project_id="p") for _ in range(10)])
    assert len({reply.id for reply in replies}) == 1
    assert len({str(reply.metadata) for reply in replies}) == 1
    assert len((await driver.page())[0]) == 1


async def test_the_same_key_over_the_other_front_is_the_same_key(world: World, user: str):
    rest, grpc = world.driver("rest", user), world.driver("grpc", user)
    request = {"key": uuid4().hex, "image_count": 1, "start_timeout_s": 3600, "metadata": {"own": 1}}
    first = await rest.create(WAITING, **request)
    assert (await grpc.create(WAITING, **request)).id == first.id


async def test_another_request_under_the_same_key_makes_no_job(driver: Driver):
    key = uuid4().hex
    first = await driver.create(WAITING, key=key)
    with pytest.raises(Refused) as refused:
        await driver.create(WAITING, "another fox", key=key)
    assert refused.value.reason == "IDEMPOTENCY_CONFLICT"
    assert [job.id for job in (await driver.page())[0]] == [first.id]


async def test_a_key_is_its_users_own(driver: Driver, other: Driver):
    key = uuid4().hex
    assert (await driver.create(WAITING, key=key)).id != (await other.create(WAITING, "another", key=key)).id


async def test_a_job_that_waits_is_cancelled_at_once_and_costs_nothing(driver: Driver):
    created = await driver.create(WAITING)
    assert await driver.credits() == (999, 1)
    found, job = await driver.cancel(created.id)
    assert (found, job.state, job.stage, job.error_message) == ("queued", "cancelled", None, "The job was cancelled.")
    assert await driver.credits() == (1000, 0)


async def test_a_job_that_runs_is_cancelled_within_a_step(driver: Driver, world: World):
    created = await driver.create(prompt="endless")
    async for event in driver.watch(created.id):
        if event.step:
            break
    found, _ = await driver.cancel(created.id)
    assert found == "processing"
    job = await ended(driver, created.id)
    assert (job.state, job.error_message, job.assets) == ("cancelled", "The job was cancelled.", [])
    assert await driver.credits() == (1000, 0)


async def test_cancelling_again_or_too_late_changes_nothing(driver: Driver):
    waiting = await driver.create(WAITING)
    await driver.cancel(waiting.id)
    before = await driver.get(waiting.id)
    assert await driver.cancel(waiting.id) == ("cancelled", before)
    done = await made(driver)
    found, job = await driver.cancel(done.id)
    assert (found, job.state, len(job.assets)) == ("completed", "completed", 1)


async def test_a_failed_job_says_why_and_gives_its_credits_back(driver: Driver):
    job = await made(driver, prompt="invalid")
    assert (job.state, job.stage, job.assets) == ("failed", None, [])
    assert "paints no such thing" in job.error_message
    assert await driver.credits() == (1000, 0)


async def test_a_completed_job_is_paid_for(driver: Driver):
    await made(driver, credits=5)
    assert await driver.credits() == (995, 0)


async def test_a_job_that_no_renderer_begins_in_time_fails(driver: Driver):
    created = await driver.create(WAITING, start_timeout_s=1)
    job = await ended(driver, created.id)
    assert (job.state, job.started_at) == ("failed", None)
    assert job.error_message
    assert await driver.credits() == (1000, 0)


async def test_events_tell_each_state_and_step_once_in_order_to_the_end(driver: Driver):
    created = await driver.create(image_count=3)
    events = [event async for event in driver.watch(created.id)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.step for event in events if event.step] == [
        (step, STEPS, image, 3) for image in range(3) for step in range(1, STEPS + 1)
    ]
    assert (events[0].state, events[0].stage, events[0].attempt) == ("queued", "queued", 0)
    assert (events[-1].state, events[-1].stage, events[-1].progress) == ("completed", None, 100)
    assert [event.progress for event in events] == sorted(event.progress for event in events)


async def test_whoever_comes_back_is_sent_what_came_after_what_they_saw(driver: Driver, world: World):
    created = await driver.create(prompt="hold:0:2")
    seen: list[EventView] = []
    async for event in driver.watch(created.id):
        seen.append(event)
        if event.step:
            break
    await world.renderer.gate.held()
    world.renderer.gate.release()
    rest = [event async for event in driver.watch(created.id, after=seen[-1].sequence)]
    numbers = [event.sequence for event in (*seen, *rest)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert rest[-1].state == "completed"


async def test_what_is_kept_of_a_job_that_has_ended_is_sent_again(driver: Driver):
    job = await made(driver)
    states = [event.state for event in [event async for event in driver.watch(job.id)] if event.step is None]
    assert (states[0], states[-1]) == ("queued", "completed")


async def test_a_watcher_who_has_seen_the_end_is_sent_nothing(driver: Driver):
    created = await driver.create()
    last = [event async for event in driver.watch(created.id)][-1]
    assert [event async for event in driver.watch(created.id, after=last.sequence)] == []


async def test_a_failure_is_told_by_its_last_event(driver: Driver):
    created = await driver.create(prompt="invalid")
    last = [event async for event in driver.watch(created.id)][-1]
    assert (last.state, last.error_message) == ("failed", (await driver.get(created.id)).error_message)


async def test_both_fronts_tell_the_same_of_a_job(world: World, user: str):
    rest, grpc = world.driver("rest", user), world.driver("grpc", user)
    job = await made(rest, project_id="p", image_count=3, metadata={"own": [1.5, "x"]})
    same = await grpc.get(job.id)
    assert [asset.id for asset in same.assets] == [asset.id for asset in job.assets]
    for name in ("state", "stage", "progress", "metadata", "credits", "warnings", "project_id", "video_id"):
        assert getattr(same, name) == getattr(job, name)
    for name in ("created_at", "started_at", "ended_at"):
        assert abs(getattr(same, name) - getattr(job, name)) < timedelta(milliseconds=1)
    assert [event async for event in rest.watch(job.id)] == [event async for event in grpc.watch(job.id)]


async def test_queues_are_told_by_name_with_who_can_take_their_work(driver: Driver):
    created = await driver.create(WAITING)
    depth, queues = await driver.queues()
    by_name = {queue.name: queue for queue in queues}
    assert set(by_name) == {"sdxl_queue", "wan_queue", "enhancer_queue"}
    assert depth == sum(queue.depth for queue in queues)
    assert by_name["sdxl_queue"].renderers == 1
    assert (by_name["wan_queue"].renderers, by_name["enhancer_queue"].renderers) == (0, 0)
    async with asyncio.timeout(30):
        # The figures are at most a second old.
        while not (waiting := {queue.name: queue for queue in (await driver.queues())[1]}["wan_queue"]).depth:
            await asyncio.sleep(0.05)
    assert waiting.oldest_s is not None
    await driver.cancel(created.id)
