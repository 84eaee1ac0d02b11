"""Jobs as they are read back."""

import base64
import json
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import InvalidRequest
from ourvidz_gateway.jobs import JobFilter, JobState
from ourvidz_gateway.records import Records, shown_metadata
from support.jobs import Bench, new_job


async def test_a_token_of_a_moment_that_never_was_is_a_bad_request(database: Database):
    for moment in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        token = base64.urlsafe_b64encode(json.dumps([moment, str(uuid4())]).encode()).decode()
        with pytest.raises(InvalidRequest):
            await Records(database).page("alice", JobFilter(), page_size=2, page_token=token)


def test_an_enhanced_prompt_is_shown_beside_the_users_own():
    job = new_job(job_type="image7b_fast_enhanced", mood="calm")
    came_in = {"prompt": "a lighthouse at dawn", "mood": "calm", "seed": 7, "num_images": 1}

    assert shown_metadata(job.metadata, job.request, {}) == came_in
    assert shown_metadata(job.metadata, {**job.request, "enhanced_prompt": "more of it"}, {"model": "m"}) == {
        **came_in,
        "enhanced_prompt": "more of it",
        "original_prompt": "a lighthouse at dawn",
        "model": "m",
    }


async def test_a_completed_job_is_complete_though_its_events_are_gone(database: Database, bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id)
    await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])
    await database.execute("DELETE FROM job_events")

    job = await Records(database).get("alice", claim.job_id)

    assert (job.state, job.progress, job.attempt) == (JobState.COMPLETED, 100, 1)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (JobFilter(), [0, 1, 2, 3, 4, 5]),
        (JobFilter(job_type="sdxl_image_high"), [1, 3, 5]),
        (JobFilter(state=JobState.CANCELLED), [4]),
        (JobFilter(project_id="p"), [0, 3]),
        (JobFilter(video_id="v"), [1, 4]),
        (JobFilter(image_id="i"), [2, 5]),
        (JobFilter(job_type="sdxl_image_high", project_id="p"), [3]),
        (JobFilter(project_id="p", video_id="v"), []),
    ],
)
async def test_pages_show_what_their_filter_asks_for_and_miss_none_of_the_same_moment(
    database: Database, bench: Bench, where: JobFilter, expected: list[int]
):
    names = ("project_id", "video_id", "image_id")
    jobs = [
        replace(
            new_job(job_type="sdxl_image_high" if number % 2 else "sdxl_image_fast"),
            **{names[number % 3]: names[number % 3][0]},
        )
        for number in range(6)
    ]
    for job in jobs:
        await bench.accept(job)
    await bench.queue.withdraw(jobs[4].id, state=JobState.CANCELLED, message="The job was cancelled.")
    await database.execute("UPDATE jobs SET created_at = '2026-01-27T12:00:00Z'")

    found: list[UUID] = []
    token: str | None = None
    while True:
        page, token = await Records(database).page("alice", where, page_size=1, page_token=token)
        found += [job.id for job in page]
        if token is None:
            break

    assert found == sorted((jobs[number].id for number in expected), reverse=True)
