from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ourvidz import AsyncClient, Client, Credits, JobState, Queue, QueueStatus, ReferenceType
from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.errors import InvalidRequest, Unauthenticated, Unreachable
from support.known_assets import asset
from support.scripted_jobs import Failure, ScriptedJobs, event, job

JOB = job().id


def test_a_job_is_asked_for_with_all_that_was_given(service: ScriptedJobs, client: Client):
    service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))
    created = client.create_job("sdxl_image_fast", "a lighthouse", negative_prompt="fog", image_count=3, seed=0)
    assert (created.id, created.state) == (JOB, JobState.QUEUED)
    (call,) = service.calls
    assert call.metadata["authorization"] == "Bearer a.b.c"
    request = call.request
    assert (request.job_type, request.prompt, request.negative_prompt) == ("sdxl_image_fast", "a lighthouse", "fog")
    assert (request.image_count, request.seed) == (3, 0)
    assert request.request_id


def test_what_is_not_given_is_left_to_the_server(service: ScriptedJobs, client: Client):
    service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))
    client.create_job("sdxl_image_fast", "a lighthouse")
    (request,) = service.requests("CreateJob")
    assert not request.HasField("image_count")
    assert not request.HasField("seed")


def test_references_are_asked_for_by_their_urls(service: ScriptedJobs, client: Client):
    service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))
    client.create_job(
        "video_fast",
        "a walk",
        reference_image_url="https://a/r",
        reference_type=ReferenceType.CHARACTER,
        start_reference_image_url="https://a/s",
        end_reference_image_url="https://a/e",
        reference_strength=0.0,
    )
    (request,) = service.requests("CreateJob")
    assert request.reference_image_url == "https://a/r"
    assert request.reference_type == jobs_pb2.REFERENCE_TYPE_CHARACTER
    assert (request.start_reference_image_url, request.end_reference_image_url) == ("https://a/s", "https://a/e")
    assert request.HasField("reference_strength")
    assert request.reference_strength == 0.0


def test_a_job_carries_what_its_caller_wants_kept_and_called(service: ScriptedJobs, client: Client):
    service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))
    client.create_job(
        "sdxl_image_fast",
        "a lighthouse",
        project_id="p",
        video_id="v",
        image_id="i",
        webhook_url="https://hooks/x",
        metadata={"scene": 3, "tags": ["sea"], "none": None},
        credits=2,
        start_timeout_s=1.5,
        request_id="r",
    )
    (request,) = service.requests("CreateJob")
    assert (request.project_id, request.video_id, request.image_id) == ("p", "v", "i")
    assert (request.webhook_url, request.credits, request.request_id) == ("https://hooks/x", 2, "r")
    assert json_format.MessageToDict(request.metadata) == {"scene": 3.0, "tags": ["sea"], "none": None}
    assert request.start_timeout.ToTimedelta().total_seconds() == 1.5


def test_a_job_is_cancelled_and_returned_as_it_stands(service: ScriptedJobs, client: Client):
    service.answer("CancelJob", jobs_pb2.CancelJobResponse(job=job("CANCELLED")))
    assert client.cancel_job(JOB).state is JobState.CANCELLED
    (request,) = service.requests("CancelJob")
    assert request.job_id == JOB


def test_a_repeated_call_carries_the_same_request_id(service: ScriptedJobs, client: Client):
    service.answer("CreateJob", Failure(grpc.StatusCode.UNAVAILABLE))
    service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))
    client.create_job("sdxl_image_fast", "a lighthouse")
    first, second = service.requests("CreateJob")
    assert first.request_id == second.request_id


def test_two_calls_carry_different_request_ids(service: ScriptedJobs, client: Client):
    for _ in range(2):
        service.answer("CreateJob", jobs_pb2.CreateJobResponse(job=job("QUEUED")))
        client.create_job("sdxl_image_fast", "a lighthouse")
    first, second = service.requests("CreateJob")
    assert first.request_id != second.request_id


def test_a_job_is_read_with_every_field(service: ScriptedJobs, client: Client):
    message = job(
        create_time=Timestamp(seconds=1_700_000_000),
        assets=[
            jobs_pb2.JobAsset(id="a", url="/x", mime_type="image/png", size_bytes=5, width_px=8, height_px=9, seed=7)
        ],
        warnings=["the prompt was cut"],
        seed=7,
    )
    message.metadata.update({"prompt": "a lighthouse", "seed": 7, "strength": 0.5, "sizes": [1, 2]})
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=message))
    read = client.get_job(JOB)
    assert read.state is JobState.COMPLETED
    assert read.stage is None
    assert read.created_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert read.started_at is None
    assert read.queue_position is None
    assert read.error_message is None
    assert read.assets == (replace(asset("/x", b"12345"), width_px=8, height_px=9),)
    assert read.warnings == ("the prompt was cut",)
    assert repr(read.metadata["seed"]) == "7"
    assert read.metadata == {"prompt": "a lighthouse", "seed": 7, "strength": 0.5, "sizes": [1, 2]}


def test_pages_of_jobs_lead_to_the_next(service: ScriptedJobs, client: Client):
    service.answer("ListJobs", jobs_pb2.ListJobsResponse(jobs=[job()], next_page_token="next"))
    service.answer("ListJobs", jobs_pb2.ListJobsResponse())
    page = client.list_jobs(page_size=1, state=JobState.COMPLETED)
    assert [each.id for each in page] == [JOB]
    last = client.list_jobs(page_size=1, page_token=page.next_page_token)
    assert (last.items, last.next_page_token) == ((), None)
    first, second = service.requests("ListJobs")
    assert first.state == jobs_pb2.JOB_STATE_COMPLETED
    assert (first.page_token, second.page_token) == ("", "next")


@pytest.mark.parametrize(
    "options",
    [{"seed": 2**70}, {"metadata": {"a": object()}}, {"start_timeout_s": float("inf")}, {"reference_type": "mood"}],
)
def test_a_value_that_the_wire_has_no_form_for_is_an_invalid_request(open_client: Callable[..., Client], options):
    with pytest.raises(InvalidRequest):
        open_client("127.0.0.1:1").create_job("sdxl_image_fast", "a lighthouse", **options)


def test_an_option_that_no_job_has_is_a_mistake_of_the_program(open_client: Callable[..., Client]):
    with pytest.raises(TypeError, match="'steps'"):
        open_client("127.0.0.1:1").create_job("sdxl_image_fast", "a lighthouse", steps=9)


def test_a_token_that_no_header_can_carry_is_refused_at_once(open_client: Callable[..., Client]):
    with pytest.raises(Unauthenticated):
        open_client("127.0.0.1:1", "a.b.c\n")


def test_all_jobs_are_listed_page_after_page_and_only_as_far_as_they_are_looked_at(
    service: ScriptedJobs, client: Client
):
    first, second = (jobs_pb2.ListJobsResponse(jobs=[job(id=name)], next_page_token=name) for name in "ab")
    service.answer("ListJobs", first)
    service.answer("ListJobs", second)
    found = client.iter_jobs(project_id="p")
    assert [next(found).id, next(found).id] == ["a", "b"]
    assert [
        (request.page_token, request.page_size, request.project_id) for request in service.requests("ListJobs")
    ] == [
        ("", 100, "p"),
        ("a", 100, "p"),
    ]
    service.answer("ListJobs", jobs_pb2.ListJobsResponse())
    assert list(found) == []


def test_a_list_of_jobs_can_be_of_one_type_project_video_and_image(service: ScriptedJobs, client: Client):
    service.answer("ListJobs", jobs_pb2.ListJobsResponse())
    client.list_jobs(job_type="video_fast", project_id="p", video_id="v", image_id="i", state=None)
    (request,) = service.requests("ListJobs")
    assert (request.job_type, request.project_id, request.video_id, request.image_id) == ("video_fast", "p", "v", "i")
    assert request.state == jobs_pb2.JOB_STATE_UNSPECIFIED


def test_the_queues_tell_how_full_they_are(service: ScriptedJobs, client: Client):
    sdxl = jobs_pb2.QueueStatus(
        name="sdxl_queue", depth=2, running=1, oldest_wait=Duration(seconds=7), renderer_count=1
    )
    answer = jobs_pb2.GetQueueStatusResponse(queue_depth=2, queues=[sdxl, jobs_pb2.QueueStatus(name="wan_queue")])
    service.answer("GetQueueStatus", answer)
    status = client.queue_status()
    assert status == QueueStatus(2, (Queue("sdxl_queue", 2, 1, 7.0, 1), Queue("wan_queue", 0, 0, None, 0)))


def test_credits_are_what_can_be_spent_and_what_is_held(service: ScriptedJobs, client: Client):
    service.answer("GetCredits", jobs_pb2.GetCreditsResponse(available=9, reserved=1))
    assert client.credits() == Credits(available=9, reserved=1)


def test_a_call_that_takes_too_long_is_given_up(service: ScriptedJobs, open_client: Callable[..., Client]):
    with pytest.raises(Unreachable, match="Deadline Exceeded"), service.stuck():
        open_client(service.address, "a.b.c", timeout_s=0.05).get_job(JOB)


def test_calls_have_the_clients_time_limit_or_one_of_their_own(
    service: ScriptedJobs, open_client: Callable[..., Client]
):
    client = open_client(service.address, "a.b.c", timeout_s=1_000)
    for timeout_s in (None, 10_000):
        service.answer("GetJob", jobs_pb2.GetJobResponse(job=job()))
        client.get_job(JOB, timeout_s=timeout_s)
    first, second = (call.time_limit_s for call in service.calls)
    # gRPC sends spans of this length rounded.
    assert 500 < first < 2_000
    assert 5_000 < second < 20_000


def test_a_watch_has_no_time_limit(service: ScriptedJobs, client: Client):
    service.answer("WatchJob", event(1, "COMPLETED"))
    list(client.watch(JOB))
    assert service.calls[0].time_limit_s > 10**9


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("GetJob", lambda client: client.get_job(JOB)),
        ("ListJobs", lambda client: client.list_jobs()),
        ("CancelJob", lambda client: client.cancel_job(JOB)),
        ("GetQueueStatus", lambda client: client.queue_status()),
        ("GetCredits", lambda client: client.credits()),
        ("ListAssets", lambda client: client.list_assets()),
        ("ListReferenceImages", lambda client: client.list_reference_images()),
    ],
)
def test_a_call_that_does_no_harm_twice_is_repeated_while_the_service_is_away(
    service: ScriptedJobs, client: Client, method: str, call
):
    service.answer(method, Failure(grpc.StatusCode.UNAVAILABLE))
    service.answer(method, Failure(grpc.StatusCode.INVALID_ARGUMENT, "in words", "INVALID_REQUEST"))
    with pytest.raises(InvalidRequest):
        call(client)
    assert len(service.requests(method)) == 2


def test_the_environment_says_where_and_who(service: ScriptedJobs, environment: None):
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=job()))
    with Client.from_environment() as client:
        client.get_job(JOB)
    assert service.calls[0].metadata["authorization"] == "Bearer a.b.c"


async def test_the_environment_says_where_and_who_for_asyncio(service: ScriptedJobs, environment: None):
    service.answer("GetJob", jobs_pb2.GetJobResponse(job=job()))
    async with AsyncClient.from_environment() as client:
        await client.get_job(JOB)
    assert service.calls[0].metadata["authorization"] == "Bearer a.b.c"
