from __future__ import annotations

import pickle

import grpc
import pytest

from ourvidz import Client, JobState
from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.errors import JobCancelled, JobFailed, JobNotCompleted, PromptRefused
from support.scripted_jobs import Failure, ScriptedJobs, event, job, step

JOB = job().id


def asked_for(service: ScriptedJobs) -> None:
    service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))


def ended(service: ScriptedJobs, state: str = "COMPLETED", **fields) -> None:
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=job(state, **fields)))


def test_a_generation_yields_its_events_and_has_the_job_at_its_end(service: ScriptedJobs, client: Client):
    asked_for(service)
    service.answer("WatchJob", step(1, 1), step(2, 20), event(3, "COMPLETED"))
    ended(service, seed=7)
    making = client.generate("sdxl_image_fast", "a lighthouse", image_count=3, previews=True)
    assert (making.job.id, making.job.state) == (JOB, JobState.QUEUED)
    told = [(each.sequence, making.job.state, making.job.progress) for each in making]
    assert told == [(1, "processing", 1), (2, "processing", 33), (3, "processing", 33)]
    assert making.job.seed == 7
    assert making.result() == making.job
    assert service.requests("CreateJob")[0].image_count == 3
    assert service.requests("WatchJob")[0].previews


def test_a_result_is_waited_for_without_looking_at_events(service: ScriptedJobs, client: Client):
    asked_for(service)
    service.answer("WatchJob", step(1, 1), event(2, "COMPLETED"))
    ended(service)
    assert client.generate("sdxl_image_fast", "a lighthouse").result().state is JobState.COMPLETED


def test_a_generation_that_was_left_goes_on_after_the_last_event(service: ScriptedJobs, client: Client):
    asked_for(service)
    service.answer("WatchJob", step(1, 1), step(2, 2), "hold")
    making = client.generate("sdxl_image_fast", "a lighthouse")
    events = iter(making)
    assert next(events).sequence == 1
    events.close()
    service.answer("WatchJob", step(2, 2), event(3, "COMPLETED"))
    ended(service)
    assert [each.sequence for each in making] == [2, 3]
    assert [request.resume_from for request in service.requests("WatchJob")] == [0, 1]


def test_a_generation_that_has_ended_yields_nothing_more(service: ScriptedJobs, client: Client):
    asked_for(service)
    service.answer("WatchJob", event(1, "COMPLETED"))
    ended(service)
    making = client.generate("sdxl_image_fast", "a lighthouse")
    assert len(list(making)) == 1
    assert list(making) == []


@pytest.mark.parametrize(("state", "kind"), [("FAILED", JobFailed), ("CANCELLED", JobCancelled)])
def test_a_job_without_its_outputs_is_raised_with_the_job_when_it_is_asked_for(
    service: ScriptedJobs, client: Client, state: str, kind: type[JobNotCompleted]
):
    asked_for(service)
    service.answer("WatchJob", event(1, state, error_message="out of memory"))
    ended(service, state, error_message="out of memory")
    making = client.generate("sdxl_image_fast", "a lighthouse")
    assert [each.error_message for each in making] == ["out of memory"]
    with pytest.raises(kind, match=f"The job {state.lower()}: out of memory") as caught:
        making.result()
    assert caught.value.job == making.job
    assert pickle.loads(pickle.dumps(caught.value)).job == making.job


def test_a_generation_can_be_cancelled(service: ScriptedJobs, client: Client):
    asked_for(service)
    service.answer("CancelJob", jobs_pb2.CancelJobResponse(job=job("PROCESSING")))
    client.generate("sdxl_image_fast", "a lighthouse").cancel()
    assert [request.job_id for request in service.requests("CancelJob")] == [JOB]


def test_a_job_that_is_refused_makes_no_generation(service: ScriptedJobs, client: Client):
    service.answer("CreateJob", Failure(grpc.StatusCode.INVALID_ARGUMENT, "no", "PROMPT_REFUSED"))
    with pytest.raises(PromptRefused):
        client.generate("sdxl_image_fast", "a lighthouse")
