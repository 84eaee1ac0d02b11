"""What happens when processes of the stack are killed, or the stack is stopped, in the middle of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.stack import Stack, running_stack
from integration.waiting import first_step, steps_of, to_the_end
from ourvidz import Client, JobState

STEPS = 40
"""Of `sdxl_image_high`."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Stack]:
    """A stack whose processes are killed."""
    with running_stack(tmp_path_factory.mktemp("survival"), model_cache) as own:
        yield own


@pytest.fixture
def client(own: Stack) -> Iterator[Client]:
    with own.client("survivor") as client:
        yield client


def attempts(own: Stack, job_id: str) -> list[str]:
    """How each attempt at a job ended."""
    rows = own.rows("SELECT outcome FROM attempts WHERE job_id = $1::uuid ORDER BY attempt", job_id)
    return [row["outcome"] for row in rows]


def test_a_killed_gateway_loses_neither_a_running_job_nor_a_waiting_one(own: Stack, client: Client):
    running = client.create_job("sdxl_image_high", "a lighthouse", image_count=3, seed=1)
    waiting = client.create_job("sdxl_image_fast", "a harbour", seed=2)
    first_step(client, running.id)

    own.server("ourvidz_gateway").kill()

    events = to_the_end(client, running.id)
    assert events[-1].state is JobState.COMPLETED
    # Every step once: the render went on by itself, and the gateway that came back found it.
    assert list(steps_of(events)) == [(image, step) for image in range(3) for step in range(1, STEPS + 1)]
    assert attempts(own, running.id) == ["completed"]
    assert to_the_end(client, waiting.id)[-1].state is JobState.COMPLETED
    assert attempts(own, waiting.id) == ["completed"]


def test_a_killed_engine_costs_one_attempt(own: Stack, client: Client):
    job = client.create_job("sdxl_image_high", "a lighthouse", seed=3)
    first_step(client, job.id)

    own.engine().kill()

    assert to_the_end(client, job.id)[-1].state is JobState.COMPLETED
    assert attempts(own, job.id) == ["failed", "completed"]


def test_a_killed_renderer_costs_one_attempt(own: Stack, client: Client):
    job = client.create_job("sdxl_image_high", "a lighthouse", seed=4)
    first_step(client, job.id)

    own.server("ourvidz_sdxl").kill()

    assert to_the_end(client, job.id)[-1].state is JobState.COMPLETED
    assert attempts(own, job.id) == ["failed", "completed"]


def test_a_killed_enhancer_delays_enhanced_jobs_and_no_others(own: Stack, client: Client):
    own.server("ourvidz_enhancer").kill()

    enhanced = client.create_job("image7b_fast_enhanced", "woman walking", seed=6)
    plain = client.create_job("image_fast", "a lighthouse", seed=6)

    assert to_the_end(client, plain.id)[-1].state is JobState.COMPLETED
    assert to_the_end(client, enhanced.id)[-1].state is JobState.COMPLETED
    done = client.get_job(enhanced.id)
    # Never the bare prompt, and never enhanced twice: one attempt that enhanced, one that rendered.
    assert done.metadata["enhanced_prompt"] != "woman walking" == done.metadata["original_prompt"]
    rows = own.rows("SELECT stage FROM attempts WHERE job_id = $1::uuid AND outcome = 'completed'", enhanced.id)
    assert sorted(row["stage"] for row in rows) == ["enhancing", "rendering"]


def test_a_killed_wan_engine_renders_the_same_clip_again_from_the_stored_prompt(own: Stack, client: Client):
    job = client.create_job("video7b_fast_enhanced", "woman walking", seed=7)
    first_step(client, job.id)
    before = client.get_job(job.id).metadata["enhanced_prompt"]

    own.engine("ourvidz_wan").kill()

    assert to_the_end(client, job.id)[-1].state is JobState.COMPLETED
    assert attempts(own, job.id) == ["completed", "failed", "completed"]
    assert client.get_job(job.id).metadata["enhanced_prompt"] == before


def test_a_cancelled_job_stops_and_the_next_one_runs(own: Stack, client: Client):
    job = client.create_job("sdxl_image_high", "a lighthouse", image_count=6, seed=5)
    first_step(client, job.id)

    with own.http("survivor") as http:
        reply = http.post(f"/api/jobs/{job.id}/cancel").json()

    assert reply["found_status"] == "processing"
    events = to_the_end(client, job.id)
    assert events[-1].state is JobState.CANCELLED
    assert len(list(steps_of(events))) < 6 * STEPS
    follower = client.create_job("sdxl_image_fast", "a harbour", seed=6)
    assert to_the_end(client, follower.id)[-1].state is JobState.COMPLETED


def test_a_stack_that_is_stopped_finds_its_jobs_again(own: Stack):
    with own.client("survivor") as client:
        running = client.create_job("sdxl_image_high", "a lighthouse", image_count=3, seed=7)
        waiting = client.create_job("sdxl_image_fast", "a harbour", seed=8)
        first_step(client, running.id)
    before = {row["id"] for row in own.rows("SELECT id FROM jobs")}

    own.stop()
    own.start()

    with own.client("survivor") as client:
        assert to_the_end(client, running.id)[-1].state is JobState.COMPLETED
        assert to_the_end(client, waiting.id)[-1].state is JobState.COMPLETED
        assert len(client.get_job(running.id).assets) == 3
    assert {row["id"] for row in own.rows("SELECT id FROM jobs")} == before
