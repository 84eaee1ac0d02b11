"""Jobs in quarantine: which they are, where they ran, and how an operator lets one be tried again."""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import (
    GatewayError,
    InsufficientCredits,
    InvalidRequest,
    JobNotFound,
    JobNotQuarantined,
    NoRenderer,
    QueueFull,
)
from ourvidz_gateway.jobs import JobStage, JobState, Kind, NewJob
from ourvidz_gateway.plan import RenderPlan
from ourvidz_gateway.quarantine import Quarantine
from support.jobs import Bench, ended, new_job, painted_job
from support.pictures import file_of, halves
from support.renderer import REFERENCES, Renderer

NOWHERE = "127.0.0.1:1"
"""Nothing listens there, so that jobs stay."""

DEADLY = ("one:1", "two:1", "three:1")


async def never(_job: NewJob, _stages: Sequence[JobStage]) -> None:
    raise AssertionError("nothing is released here")


async def put_in_quarantine(bench: Bench, job: NewJob | None = None, *, busy: bool = False) -> UUID:
    """Let a job take three renderers down; `busy`: after a first one that did not take it."""
    job = job or new_job()
    session_id = await bench.add_session()
    await bench.accept(job)
    for address in [*(["busy:1"] if busy else []), *DEADLY]:
        if await bench.value("SELECT count(*) FROM renderer_slots WHERE address = $1", address) == 0:
            await bench.add_slots(address=address)
        claim = await bench.claim(session_id, address)
        assert claim
        if address == DEADLY[-1]:
            await bench.attempts.fail(
                claim, session_id, reason="ENGINE_DIED", message="It failed 3 times.", quarantine=True
            )
        else:
            await bench.attempts.retry(claim, session_id, reason="X", counts=address in DEADLY, delay_s=0, cost=1)
    return job.id


async def test_a_job_in_quarantine_says_whose_it_is_and_where_it_ran(bench: Bench):
    job_id = await put_in_quarantine(bench, busy=True)
    await bench.add_job()

    [job], token = await Quarantine(bench.database, never).page(
        user_id=None, include_released=False, page_size=10, page_token=None
    )

    assert token is None
    assert (job.job_id, job.user_id, job.job_type) == (job_id, "alice", "sdxl_image_fast")
    assert (job.attempt_count, list(job.renderers)) == (3, list(DEADLY))
    assert (job.error_message, job.released_as) == ("It failed 3 times.", None)
    assert job.quarantined_at == await bench.value("SELECT completed_at FROM jobs WHERE id = $1", job_id)


async def test_pages_go_from_the_newest_to_the_oldest_and_can_be_narrowed(bench: Bench, database: Database):
    jobs = [await put_in_quarantine(bench, new_job("bob" if number == 2 else "alice")) for number in range(5)]
    await database.execute("UPDATE jobs SET released_as = $1 WHERE id = $2", uuid4(), jobs[3])
    # Two that came at the same time are told apart by their ids.
    await database.execute(
        "UPDATE jobs SET quarantined_at = (SELECT max(quarantined_at) FROM jobs) WHERE id = $1", jobs[0]
    )
    quarantine = Quarantine(database, never)

    async def listed(**narrowed: object) -> list[UUID]:
        found, token = [], None
        while True:
            where = {"user_id": None, "include_released": False, **narrowed}
            page, token = await quarantine.page(**where, page_size=2, page_token=token)
            found += [job.job_id for job in page]
            if token is None:
                return found

    newest = sorted([jobs[0], jobs[4]], reverse=True)
    assert await listed(include_released=True) == [*newest, jobs[3], jobs[2], jobs[1]]
    assert await listed() == [*newest, jobs[2], jobs[1]]
    assert await listed(user_id="bob") == [jobs[2]]
    for bad in ({"page_size": 0}, {"page_size": 101}, {"page_token": "x"}):
        with pytest.raises(InvalidRequest):
            await quarantine.page(
                **{"user_id": None, "include_released": True, "page_size": 1, "page_token": None, **bad}
            )


async def test_a_released_job_is_made_again_as_it_was_asked_for(bench: Bench, open_one):
    asked = replace(
        painted_job(images=3),
        credits=5,
        project_id="p",
        video_id="v",
        image_id="i",
        webhook_url="https://hooks.example.com/x",
    )
    old_id = await put_in_quarantine(bench, asked)
    async with open_one() as gateway:
        released = await gateway.quarantine.release(old_id)

        assert (released.job_id, released.released_as is None) == (old_id, False)
        assert (await ended(gateway, released.released_as)).state == JobState.COMPLETED
        new = await gateway.get("alice", released.released_as)
        old = await gateway.get("alice", old_id)
    assert (new.retry_of, new.job_type, new.credits) == (old_id, asked.job_type, 5)
    assert (new.project_id, new.video_id, new.image_id) == ("p", "v", "i")
    assert [asset.seed for asset in new.assets] == [7, 8, 9]
    assert (old.state, old.retry_of) == (JobState.FAILED, None)
    assert await bench.value("SELECT webhook_url FROM jobs WHERE id = $1", new.id) == asked.webhook_url
    assert await bench.ledger() == [("grant", 1000), ("reserve", 5), ("release", 5), ("reserve", 5), ("settle", 5)]
    assert await bench.wrong_accounts() == []
    quarantine = Quarantine(bench.database, never)
    for include_released, count in ((False, 0), (True, 1)):
        page, _ = await quarantine.page(user_id=None, include_released=include_released, page_size=1, page_token=None)
        assert [job.released_as for job in page] == [new.id] * count


async def test_a_job_is_released_once_however_often_and_wherever_that_is_asked_for(bench: Bench, open_one):
    old_id = await put_in_quarantine(bench)
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(open_one(renderers_sdxl=NOWHERE)) for _ in range(2)]

        released = await asyncio.gather(*(gateways[turn % 2].quarantine.release(old_id) for turn in range(20)))
        again = await gateways[0].quarantine.release(old_id)

    [new_id] = {job.released_as for job in [*released, again]}
    assert await bench.value("SELECT array_agg(id) FROM jobs WHERE retry_of = $1", old_id) == [new_id]
    assert await bench.account() == (999, 1, 1)
    assert await bench.wrong_accounts() == []


async def test_a_released_job_goes_on_where_it_failed_with_what_was_done_before(
    bench: Bench, renderer: Renderer, open_one
):
    """Its prompt is not enhanced again, and the picture that was fetched for the old job serves the new one."""
    picture, key = file_of(halves()), f"alice/{uuid4()}/image.png"
    await renderer.store.put(REFERENCES, key, picture, content_type="image/png")
    stored = {"bucket": REFERENCES, "key": key, "sha256": hashlib.sha256(picture).hexdigest()}
    reference = {"role": "image", "url": "https://elsewhere.example.com/x", "own_id": None}
    job = painted_job(enhanced=True, references=[{**reference, "stored": None}])
    stages = RenderPlan.from_json(job.request).stages
    assert len(stages) == 3
    await bench.accept(job, stages=stages)
    done = {**job.request, "references": [{**reference, "stored": stored}], "enhanced_prompt": "echo"}
    await bench.database.execute(
        """UPDATE jobs SET request = $1, stage_index = 3, state = 'failed', quarantined_at = now(),
                           completed_at = now()""",
        done,
    )
    await bench.database.execute("DELETE FROM queue")
    await bench.database.execute("DELETE FROM lanes")

    async with open_one(renderers_enhancer=NOWHERE) as gateway:
        released = await gateway.quarantine.release(job.id)
        event = await ended(gateway, released.released_as)
        new = await gateway.get("alice", released.released_as)

    assert event.state == JobState.COMPLETED
    assert new.metadata["reference_engine"] == "echo"
    assert new.metadata["enhanced_prompt"] == "echo"
    stages_run = "SELECT array_agg(stage) FROM attempts WHERE job_id = $1"
    assert await bench.value(stages_run, new.id) == ["rendering"]


async def test_only_a_job_in_quarantine_can_be_released(bench: Bench, open_one):
    job_id = await bench.add_job()
    async with open_one(renderers_sdxl=NOWHERE) as gateway:
        with pytest.raises(JobNotQuarantined):
            await gateway.quarantine.release(job_id)
        with pytest.raises(JobNotFound):
            await gateway.quarantine.release(uuid4())
    assert await bench.value("SELECT count(*) FROM jobs") == 1


@pytest.mark.parametrize(
    ("refusal", "settings"),
    [
        (InsufficientCredits, {"renderers_sdxl": NOWHERE}),
        (NoRenderer, {"renderers_sdxl": ""}),
        (QueueFull, {"renderers_sdxl": NOWHERE, "queue_limit": 1}),
    ],
)
async def test_a_release_that_is_refused_leaves_the_job_in_quarantine(
    bench: Bench, open_one, refusal: type[GatewayError], settings: dict[str, object]
):
    old_id = await put_in_quarantine(bench)
    if refusal is InsufficientCredits:
        await bench.database.execute("UPDATE accounts SET available = 0")
    else:
        await bench.add_job("bob")
    before = await bench.account(), await bench.value("SELECT count(*) FROM jobs")

    async with open_one(**settings) as gateway:
        with pytest.raises(refusal):
            await gateway.quarantine.release(old_id)

    assert (await bench.account(), await bench.value("SELECT count(*) FROM jobs")) == before
    assert await bench.value("SELECT released_as FROM jobs WHERE id = $1", old_id) is None


async def test_no_limit_of_the_user_stops_an_operators_release(bench: Bench, open_one):
    old_id = await put_in_quarantine(bench)
    limits = {"user_open_jobs": 1, "user_jobs_per_minute": 0.001, "user_job_burst": 1}
    async with open_one(renderers_sdxl=NOWHERE, **limits) as gateway:
        await gateway.accept(painted_job())
        rate_at = await bench.value("SELECT rate_at FROM accounts")

        released = await gateway.quarantine.release(old_id)

    assert released.released_as
    assert await bench.account() == (998, 2, 2)
    assert await bench.value("SELECT rate_at FROM accounts") == rate_at, "it takes up no time of the user's"
    assert await bench.value("SELECT kind FROM queue WHERE job_id = $1", released.released_as) == Kind.SDXL
