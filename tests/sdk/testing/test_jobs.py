"""Jobs in the double go as they go in the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import jwt
import pytest
from PIL import Image

from ourvidz import Client, Credits, JobState
from ourvidz.errors import (
    IdempotencyConflict,
    InsufficientCredits,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    JobNotFound,
    PromptRefused,
    QueueFull,
    RateLimited,
    Unauthenticated,
    UnknownJobType,
)
from ourvidz.testing import FakeOurVidz


def stages(client: Client, job_id: str) -> list[tuple[str, str | None, int]]:
    """The milestones of a job: state, stage and attempt."""
    return [(event.state, event.stage, event.attempt) for event in client.watch(job_id) if event.step is None]


def test_a_job_completes_by_itself_with_pictures_to_download(ann: Client, tmp_path: Path):
    job = ann.generate(
        "sdxl_image_fast", " a lighthouse ", image_count=3, seed=2**32 - 1, project_id="p", metadata={"scene": 3}
    ).result()
    assert (job.state, job.progress, job.user_id, job.project_id) == (JobState.COMPLETED, 100, "ann", "p")
    assert job.created_at <= job.started_at <= job.completed_at
    assert (job.metadata["prompt"], job.metadata["scene"], job.metadata["num_images"]) == ("a lighthouse", 3, 3)
    assert [asset.seed for asset in job.assets] == [2**32 - 1, 0, 1]
    for index, asset in enumerate(job.assets):
        path = tmp_path / f"{index}.png"
        ann.download(asset, path)
        with Image.open(path) as picture:
            assert picture.size == (asset.width_px, asset.height_px) == (1024, 1024)
    assert len({(tmp_path / f"{index}.png").read_bytes() for index in range(3)}) == 3


def test_a_clip_is_an_mp4_of_five_seconds(ann: Client, tmp_path: Path):
    (asset,) = ann.generate("video_fast", "a walk").result().assets
    assert (asset.mime_type, asset.duration_s, asset.width_px, asset.height_px) == ("video/mp4", 5.0, 480, 832)
    ann.download(asset, tmp_path / "clip.mp4")
    assert (tmp_path / "clip.mp4").read_bytes()[4:8] == b"ftyp"


def test_events_tell_each_stage_and_step(ann: Client):
    making = ann.generate("sdxl_image_fast", "a lighthouse", image_count=3)
    events = list(making)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [(event.step.image_index, event.step.step) for event in events if event.step] == [
        (image, step) for image in range(3) for step in range(1, 5)
    ]
    progress = [event.progress for event in events]
    assert progress == sorted(progress)
    assert (progress[0], progress[-2:]) == (0, [95, 100])
    assert stages(ann, making.job.id) == [
        ("queued", "queued", 0),
        ("processing", "rendering", 1),
        ("processing", "uploading", 1),
        ("completed", None, 1),
    ]


def test_an_enhanced_job_waits_again_before_it_is_rendered(ann: Client):
    job = ann.generate("image7b_fast_enhanced", "a lighthouse").result()
    assert job.metadata["original_prompt"] == "a lighthouse"
    assert job.metadata["enhanced_prompt"].startswith("a lighthouse, ")
    assert stages(ann, job.id)[:4] == [
        ("queued", "queued", 0),
        ("processing", "enhancing", 1),
        ("queued", "queued", 1),
        ("processing", "rendering", 2),
    ]


def test_events_can_be_gone_on_with_and_previews_come_for_those_who_ask(ann: Client):
    job = ann.generate("image_fast", "a lighthouse").result()
    events = list(ann.watch(job.id, resume_from=4, previews=True))
    assert [event.sequence for event in events if event.sequence] == [5, 6, 7, 8]
    previews = [event for event in events if event.preview_jpeg]
    assert len(previews) == len([event for event in events if event.step])
    assert not any(event.preview_jpeg for event in ann.watch(job.id))


def test_a_held_job_waits_or_runs_until_it_is_released(service: FakeOurVidz, ann: Client):
    service.hold_next()
    service.hold_next(after_steps=2)
    waiting, running = (ann.create_job("sdxl_image_fast", "a lighthouse") for _ in range(2))
    *_, step = islice(ann.watch(running.id), 4)
    assert step.step.step == 2
    status = ann.queue_status()
    sdxl = next(queue for queue in status.queues if queue.name == "sdxl_queue")
    assert (status.depth, sdxl.depth, sdxl.running) == (1, 1, 1)
    assert sdxl.oldest_wait_s >= 0
    assert (ann.get_job(waiting.id).state, ann.get_job(waiting.id).queue_position) == (JobState.QUEUED, 0)
    assert ann.get_job(running.id).state is JobState.PROCESSING
    service.release()
    for job in (waiting, running):
        assert list(ann.watch(job.id))[-1].state is JobState.COMPLETED
    assert ann.queue_status().depth == 0


def test_a_watcher_that_waits_sees_the_events_as_they_come(service: FakeOurVidz, ann: Client):
    service.hold_next(after_steps=1)
    events = ann.watch(ann.create_job("image_fast", "a lighthouse").id)
    seen = [next(events) for _ in range(3)]
    assert seen[-1].step.step == 1
    service.release()
    assert list(events)[-1].state is JobState.COMPLETED


def test_the_next_job_fails_as_it_is_told_and_costs_nothing(service: FakeOurVidz, ann: Client):
    service.fail_next("The renderer ran out of memory.", after_steps=5)
    making = ann.generate("sdxl_image_fast", "a lighthouse", image_count=3, credits=6)
    with pytest.raises(JobFailed, match="ran out of memory") as caught:
        making.result()
    assert len([event for event in ann.watch(making.job.id) if event.step]) == 5
    assert caught.value.job.assets == ()
    assert ann.credits() == Credits(1000, 0)
    assert ann.generate("image_fast", "a lighthouse").result().state is JobState.COMPLETED


def test_a_job_can_be_cancelled_elsewhere_and_keeps_what_is_done_for_its_share(service: FakeOurVidz, ann: Client):
    service.cancel_next(after_steps=5)
    with pytest.raises(JobCancelled) as caught:
        ann.generate("sdxl_image_fast", "a lighthouse", image_count=3, credits=10).result()
    assert [asset.seed for asset in caught.value.job.assets] == [caught.value.job.seed]
    assert ann.credits() == Credits(996, 0)


def test_a_cancel_ends_a_waiting_job_at_once_and_a_running_one_soon(service: FakeOurVidz, ann: Client):
    service.hold_next()
    service.hold_next(after_steps=1)
    waiting, running = (ann.create_job("image_fast", "a lighthouse") for _ in range(2))
    list(islice(ann.watch(running.id), 3))
    assert ann.credits() == Credits(998, 2)
    assert ann.cancel_job(waiting.id).state is JobState.CANCELLED
    ann.cancel_job(running.id)
    for job in (waiting, running):
        last = list(ann.watch(job.id))[-1]
        assert (last.state, last.error_message) == (JobState.CANCELLED, "The job was cancelled.")
        assert ann.cancel_job(job.id).state is JobState.CANCELLED
    assert ann.credits() == Credits(1000, 0)


def test_scripts_are_followed_in_order(service: FakeOurVidz, ann: Client):
    service.complete_next()
    service.fail_next("no")
    ended = [list(ann.generate("image_fast", "a lighthouse"))[-1].state for _ in range(3)]
    assert ended == ["completed", "failed", "completed"]


@pytest.mark.parametrize(
    "error",
    [QueueFull("The queue is full.", retry_after_s=5), PromptRefused("Ask for something else."), RateLimited("Slow.")],
)
def test_a_call_is_refused_once_as_it_is_told(service: FakeOurVidz, ann: Client, error: Exception):
    service.refuse_next(error)
    with pytest.raises(type(error), match=str(error)) as caught:
        ann.create_job("image_fast", "a lighthouse")
    assert caught.value.retry_after_s == error.retry_after_s
    assert len(service.requests("CreateJob")) == 1
    ann.create_job("image_fast", "a lighthouse")
    assert len(service.jobs) == 1


def test_what_cannot_be_paid_is_refused(service: FakeOurVidz, ann: Client, bob: Client):
    service.set_credits("ann", 1)
    ann.create_job("image_fast", "a lighthouse")
    with pytest.raises(InsufficientCredits):
        ann.create_job("image_fast", "a lighthouse")
    bob.create_job("image_fast", "a lighthouse")
    assert service.credits_of("ann").available == 0


def test_the_same_request_id_is_the_same_job_and_another_request_is_refused(ann: Client, bob: Client):
    first = ann.create_job("image_fast", "a lighthouse", request_id="r")
    assert ann.create_job("image_fast", "a lighthouse", request_id="r").id == first.id
    with pytest.raises(IdempotencyConflict):
        ann.create_job("image_fast", "another", request_id="r")
    assert bob.create_job("image_fast", "another", request_id="r").id != first.id
    assert ann.credits().available == 999


@pytest.mark.parametrize("call", [Client.get_job, Client.cancel_job, lambda client, job: list(client.watch(job))])
def test_another_users_job_is_not_there(ann: Client, bob: Client, call: Callable[[Client, str], object]):
    job = ann.create_job("image_fast", "a lighthouse")
    with pytest.raises(JobNotFound, match=job.id):
        call(bob, job.id)
    assert list(bob.iter_jobs()) == []


def test_jobs_are_listed_newest_first_in_pages_and_by_filter(service: FakeOurVidz, ann: Client):
    service.fail_next("no")
    for number, project in enumerate(["p", "q", "p"]):
        list(ann.generate("image_fast", f"picture {number}", project_id=project))
    ann.generate("video_fast", "a walk").result()
    page = ann.list_jobs(page_size=3)
    assert [job.metadata["prompt"] for job in page] == ["a walk", "picture 2", "picture 1"]
    last = ann.list_jobs(page_size=3, page_token=page.next_page_token)
    assert ([job.metadata["prompt"] for job in last], last.next_page_token) == (["picture 0"], None)
    assert len(ann.list_jobs(project_id="p")) == 2
    assert [job.job_type for job in ann.list_jobs(job_type="video_fast")] == ["video_fast"]
    assert [job.metadata["prompt"] for job in ann.list_jobs(state=JobState.FAILED)] == ["picture 0"]


@pytest.mark.parametrize(("options", "field"), [({"page_size": 101}, "page_size"), ({"page_token": "x"}, "page_token")])
def test_a_bad_page_is_refused(ann: Client, options: dict, field: str):
    with pytest.raises(InvalidRequest) as caught:
        ann.list_jobs(**options)
    assert [bad.field for bad in caught.value.fields] == [field]


def test_a_list_of_no_known_type_is_refused(ann: Client):
    with pytest.raises(UnknownJobType, match="sdxl_image_fast, "):
        ann.list_jobs(job_type="mood")


@pytest.mark.parametrize(
    "token",
    [
        None,
        "a.b.c",
        jwt.encode({"sub": "ann", "aud": "authenticated", "exp": 9**10}, "another secret of forty characters here"),
        jwt.encode({"sub": "ann", "aud": "another", "exp": 9**10}, "s" * 40),
        jwt.encode({"sub": "ann", "aud": "authenticated", "exp": 1}, "s" * 40),
        jwt.encode({"sub": "ann", "aud": "authenticated"}, "s" * 40),
    ],
)
def test_a_token_that_is_not_good_is_not_let_in(token: str | None):
    with FakeOurVidz(jwt_secret="s" * 40) as service, Client(service.address, token) as client:
        with pytest.raises(Unauthenticated):
            client.get_job("x")
        assert service.received == []


def test_a_program_can_sign_its_own_tokens():
    claims = {"sub": "ann", "aud": "authenticated", "exp": datetime.now(UTC) + timedelta(minutes=1)}
    with (
        FakeOurVidz(jwt_secret="s" * 40) as service,
        Client(service.address, jwt.encode(claims, "s" * 40)) as client,
    ):
        assert client.create_job("image_fast", "a lighthouse").user_id == "ann"


def test_webhooks_and_references_go_to_allowed_hosts_alone():
    with FakeOurVidz(webhook_hosts=["hooks.example.com"], reference_hosts=["images.example.com"]) as service:
        job = service.client().create_job(
            "sdxl_image_fast",
            "a lighthouse",
            webhook_url="https://hooks.example.com/x",
            reference_image_url="https://images.example.com/x.png",
        )
    assert job.metadata["reference_image_url"] == "https://images.example.com/x.png"


async def test_many_jobs_are_made_at_once(service: FakeOurVidz):
    async with service.async_client() as client:
        makings = await asyncio.gather(*(client.generate("image_fast", f"picture {number}") for number in range(20)))
        jobs = await asyncio.gather(*(making.result() for making in makings))
    assert [job.metadata["prompt"] for job in jobs] == [f"picture {number}" for number in range(20)]


async def test_a_generation_is_left_in_the_middle_and_its_result_taken_later(service: FakeOurVidz):
    async with service.async_client() as client:
        service.hold_next(after_steps=1)
        making = await client.generate("image_fast", "a lighthouse")
        async for event in making:
            if event.step:
                break
        service.release()
        assert (await making.result()).state is JobState.COMPLETED


def test_it_stops_while_jobs_are_held_and_watched():
    with FakeOurVidz(step_pause_s=60) as service:
        service.hold_next()
        events = [
            service.client().watch(service.client().create_job("image_fast", "a lighthouse").id, patience_s=0)
            for _ in range(2)
        ]
        assert [next(each).state for each in events] == ["queued", "queued"]
