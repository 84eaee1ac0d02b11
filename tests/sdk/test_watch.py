from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import grpc
import pytest

from ourvidz import Client, JobStage, JobState, Step
from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.errors import DatabaseUnavailable, JobNotFound
from support.scripted_jobs import Failure, ScriptedJobs, event, job, preview, served, step

JOB = job().id


def test_watching_yields_each_event_and_ends_with_the_job(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", event(1, "QUEUED", "QUEUED"), event(0), step(2, 1), event(3, "COMPLETED"), "hold")
    events = list(client.watch(JOB))
    assert [(each.sequence, each.state, each.stage) for each in events] == [
        (1, JobState.QUEUED, JobStage.QUEUED),
        (2, JobState.PROCESSING, JobStage.RENDERING),
        (3, JobState.COMPLETED, None),
    ]
    assert events[1].step == Step(step=1, step_count=20, image_index=0, image_count=3)


def test_a_broken_stream_is_resumed_after_the_last_event(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", event(1), step(2, 1), Failure(grpc.StatusCode.UNAVAILABLE))
    service.answer("WatchJob", Failure(grpc.StatusCode.UNAVAILABLE, "starting", "DATABASE_UNAVAILABLE"))
    service.answer("WatchJob", step(2, 1), step(3, 2), event(4, "COMPLETED"))
    assert [each.sequence for each in client.watch(JOB)] == [1, 2, 3, 4]
    assert [request.resume_from for request in service.requests("WatchJob")] == [0, 2, 2]


def test_watching_goes_on_when_the_server_is_replaced(open_client: Callable[..., Client]):
    first, second = ScriptedJobs(), ScriptedJobs()
    first.answer("WatchJob", event(1), "hold")
    second.answer("WatchJob", event(2, "COMPLETED"))
    with ExitStack() as running:
        old = running.enter_context(ExitStack())
        old.enter_context(served(first))
        events = open_client(first.address).watch(JOB)
        assert next(events).sequence == 1
        first.held.wait()
        old.close()
        running.enter_context(served(second, port=int(first.address.rpartition(":")[2])))
        assert [each.sequence for each in events] == [2]
    assert [request.resume_from for request in second.requests("WatchJob")] == [1]


def test_a_stream_that_ends_early_is_resumed(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", event(1))
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=job("PROCESSING")))
    service.answer("WatchJob", event(2, "COMPLETED"))
    assert [each.sequence for each in client.watch(JOB)] == [1, 2]


def test_watching_a_job_whose_end_was_seen_ends(service: ScriptedJobs, client: Client):
    service.answer("WatchJob")
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=job()))
    assert list(client.watch(JOB, resume_from=9)) == []


def test_watching_gives_up_when_patience_ends(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", Failure(grpc.StatusCode.UNAVAILABLE, "in words", "DATABASE_UNAVAILABLE"))
    with pytest.raises(DatabaseUnavailable):
        list(client.watch(JOB, patience_s=0))


def test_watching_an_unknown_job_fails_at_once(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", Failure(grpc.StatusCode.NOT_FOUND, "no such job", "JOB_NOT_FOUND"))
    with pytest.raises(JobNotFound):
        list(client.watch(JOB))


def test_a_watcher_that_leaves_ends_its_stream(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", event(1), "hold")
    events = client.watch(JOB)
    next(events)
    service.held.wait()
    events.close()  # the server's stop at the end of the test would wait for a stream that goes on


def test_previews_come_between_the_events_for_those_who_ask(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", step(1, 1), preview(b"jpeg"), event(0), event(2, "COMPLETED"))
    events = list(client.watch(JOB, previews=True))
    assert [(each.sequence, each.preview_jpeg) for each in events] == [(1, None), (0, b"jpeg"), (2, None)]
    (request,) = service.requests("WatchJob")
    assert request.previews


def test_pieces_of_the_enhanced_prompt_are_told(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", event(1, stage="ENHANCING", enhanced_text="A light"), event(2, "COMPLETED"))
    first, _ = client.watch(JOB)
    assert (first.stage, first.enhanced_text) == (JobStage.ENHANCING, "A light")
