"""Jobs over gRPC."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ourvidz import rpc_status
from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz_gateway.errors import DatabaseUnavailable, InsufficientCredits, NoRenderer, QueueFull
from ourvidz_gateway.jobs import JobState
from support import fronts

UNKNOWN = "0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53"


async def create(stub, caller, **fields) -> jobs_pb2.CreateJobResponse:
    request = jobs_pb2.CreateJobRequest(**{"job_type": "sdxl_image_fast", "prompt": "a lighthouse", **fields})
    return await stub.CreateJob(request, metadata=caller)


async def refused(call) -> rpc_status.ParsedError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return rpc_status.parse(caught.value)


async def test_a_job_is_accepted_with_all_that_the_message_says(stub, alice, jobs):
    reply = await create(
        stub,
        alice,
        image_count=3,
        seed=7,
        negative_prompt="fog",
        credits=2,
        project_id="p",
        video_id="v",
        image_id="i",
        reference_strength=0.5,
        metadata={"tags": ["a", None, 1, 1.5, True], "bucket": "sdxl_image_fast"},
    )

    accepted = jobs.accepted[0]
    assert accepted.metadata == {
        "prompt": "a lighthouse",
        "negative_prompt": "fog",
        "num_images": 3,
        "seed": 7,
        "credits": 2,
        "reference_strength": 0.5,
        "tags": ["a", None, 1, 1.5, True],
        "bucket": "sdxl_image_fast",
    }
    assert type(accepted.metadata["tags"][2]) is int
    assert (accepted.request["seed"], accepted.request["image_count"]) == (7, 3)
    assert (reply.queue_length, reply.model_variant) == (1, "sdxl")
    job = reply.job
    assert (job.id, job.user_id, job.job_type) == (str(accepted.id), "alice", "sdxl_image_fast")
    assert (job.state, job.stage) == (jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STAGE_QUEUED)
    assert (job.seed, job.credits, job.queue_position) == (7, 2, 0)
    assert (job.project_id, job.video_id, job.image_id) == ("p", "v", "i")
    assert job.create_time.ToDatetime(UTC) == datetime(2026, 1, 27, 12, 0, tzinfo=UTC)
    assert not job.HasField("start_time")
    assert job.metadata["negative_prompt"] == "fog"


async def test_fields_that_are_not_set_are_not_in_the_metadata(stub, alice, jobs):
    await create(stub, alice)

    assert jobs.accepted[0].metadata == {"prompt": "a lighthouse"}


@pytest.mark.parametrize("key", ["prompt", "num_images", "seed", "similarity_strength", "reference_image_url"])
async def test_metadata_can_not_say_what_a_field_is_meant_for(stub, alice, jobs, key):
    error = await refused(create(stub, alice, metadata={key: 1}))

    assert (error.reason, [violation.field for violation in error.fields]) == ("INVALID_REQUEST", ["metadata"])
    assert key in error.message
    assert jobs.accepted == []


@pytest.mark.parametrize(
    ("error", "code", "retry_after_s"),
    [
        (QueueFull("1000 jobs wait already.", retry_after_s=10), grpc.StatusCode.UNAVAILABLE, 10),
        (DatabaseUnavailable("The database is out of reach."), grpc.StatusCode.UNAVAILABLE, 5),
        (NoRenderer("No wan renderer is configured."), grpc.StatusCode.UNAVAILABLE, None),
        (InsufficientCredits("You have 0 credits."), grpc.StatusCode.FAILED_PRECONDITION, None),
    ],
)
async def test_a_job_that_can_not_be_taken_says_why_and_when_to_ask_again(
    stub, alice, jobs, error, code, retry_after_s
):
    with jobs.failing(error):
        told = await refused(create(stub, alice))

    assert (told.code, told.reason, told.message, told.retry_after_s) == (
        code,
        error.reason,
        error.message,
        retry_after_s,
    )


async def test_a_completed_job_has_signed_assets(stub, alice, jobs):
    job_id = (await create(stub, alice)).job.id
    jobs.end(UUID(job_id), outputs=2)

    job = (await stub.GetJob(jobs_pb2.GetJobRequest(job_id=job_id), metadata=alice)).job

    assert (job.state, job.stage, job.progress_percent) == (
        jobs_pb2.JOB_STATE_COMPLETED,
        jobs_pb2.JOB_STAGE_UNSPECIFIED,
        100,
    )
    assert job.HasField("end_time")
    assert not job.HasField("queue_position")
    assert [asset.seed for asset in job.assets] == [7, 8]
    first = job.assets[0]
    assert first.url.startswith(f"{fronts.PUBLIC_URL}/objects/sdxl-image-fast/alice/{job_id}/1/0.png?token=")
    assert (first.mime_type, first.size_bytes, first.width_px, first.height_px) == ("image/png", 1_000_000, 1024, 1024)
    left = first.url_expire_time.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(days=6) < left <= timedelta(days=7)


async def test_jobs_are_listed_newest_first_page_by_page(stub, alice):
    made = [(await create(stub, alice)).job.id for _ in range(5)]

    seen, token = [], ""
    while True:
        page = await stub.ListJobs(jobs_pb2.ListJobsRequest(page_size=2, page_token=token), metadata=alice)
        seen += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break

    assert seen == made[::-1]


async def test_a_list_shows_what_its_filters_ask_for(stub, alice, bob, jobs):
    plain = (await create(stub, alice)).job.id
    video = (await create(stub, alice, job_type="video_fast", project_id="p")).job.id
    jobs.end(UUID(plain))

    async def ids(caller=alice, **where):
        page = await stub.ListJobs(jobs_pb2.ListJobsRequest(**where), metadata=caller)
        return [job.id for job in page.jobs]

    assert await ids(state=jobs_pb2.JOB_STATE_COMPLETED) == [plain]
    assert await ids(job_type="video_fast") == [video]
    assert await ids(project_id="p") == [video]
    assert await ids() == [video, plain]
    assert await ids(bob) == []


@pytest.mark.parametrize(
    ("where", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 101}, "page_size"),
        ({"page_token": "nonsense"}, "page_token"),
        ({"state": 99}, "state"),
        ({"project_id": "a\0"}, "project_id"),
        ({"job_type": "film"}, "job_type"),
    ],
)
async def test_a_bad_filter_is_refused_by_name(stub, alice, where, field):
    error = await refused(stub.ListJobs(jobs_pb2.ListJobsRequest(**where), metadata=alice))

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in error.fields] == [field]


async def test_cancelling_tells_what_it_found_and_can_be_repeated(stub, alice):
    request = jobs_pb2.CancelJobRequest(job_id=(await create(stub, alice)).job.id)

    first = await stub.CancelJob(request, metadata=alice)
    second = await stub.CancelJob(request, metadata=alice)

    assert (first.found_state, first.job.state) == (jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_CANCELLED)
    assert (second.found_state, second.job.state) == (jobs_pb2.JOB_STATE_CANCELLED, jobs_pb2.JOB_STATE_CANCELLED)


async def test_a_watcher_gets_every_event_as_it_happens_to_the_terminal_one(stub, alice, jobs):
    job_id = (await create(stub, alice)).job.id
    call = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id), metadata=alice)

    first = await call.read()
    assert (first.sequence, first.state, first.attempt) == (1, jobs_pb2.JOB_STATE_QUEUED, 0)
    jobs.step(UUID(job_id), 5)
    step = await call.read()
    assert step.step == jobs_pb2.StepDetail(step=5, step_count=20, image_index=0, image_count=1)
    assert (step.stage, step.progress_percent, step.attempt) == (jobs_pb2.JOB_STAGE_RENDERING, 23, 1)
    jobs.end(UUID(job_id), JobState.FAILED, error_message="The renderer died.")
    last = await call.read()
    assert (last.sequence, last.state, last.error_message) == (3, jobs_pb2.JOB_STATE_FAILED, "The renderer died.")
    assert await call.read() is grpc.aio.EOF


async def test_a_watcher_goes_on_where_it_stopped(stub, alice, jobs):
    job_id = (await create(stub, alice)).job.id
    jobs.step(UUID(job_id), 1)
    jobs.end(UUID(job_id))

    call = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id, resume_from=2), metadata=alice)

    assert [event.sequence async for event in call] == [3]


async def test_a_negative_place_to_go_on_is_refused(stub, alice):
    job_id = (await create(stub, alice)).job.id

    error = await refused(stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id, resume_from=-1), metadata=alice).read())

    assert [violation.field for violation in error.fields] == ["resume_from"]


@pytest.mark.parametrize("job_id", [UNKNOWN, "", "nonsense", UNKNOWN.replace("-", ""), "a\0"])
async def test_an_unknown_job_is_not_found(stub, alice, job_id):
    calls = [
        stub.GetJob(jobs_pb2.GetJobRequest(job_id=job_id), metadata=alice),
        stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id), metadata=alice),
        stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id), metadata=alice).read(),
    ]

    for call in calls:
        error = await refused(call)
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


async def test_another_users_job_looks_like_an_unknown_one(stub, alice, bob, jobs):
    job_id = (await create(stub, alice)).job.id
    calls = [
        stub.GetJob(jobs_pb2.GetJobRequest(job_id=job_id), metadata=bob),
        stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id), metadata=bob),
        stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id), metadata=bob).read(),
    ]

    for call in calls:
        error = await refused(call)
        assert (error.code, error.message) == (grpc.StatusCode.NOT_FOUND, f"There is no job {job_id}.")
    assert (await jobs.get("alice", UUID(job_id))).state is JobState.QUEUED


@pytest.mark.parametrize(
    "metadata",
    [(), (("authorization", "Basic YTpi"),), (("authorization", "Bearer nonsense"),)],
    ids=["none", "basic", "nonsense"],
)
async def test_without_a_valid_token_nothing_is_answered(stub, jobs, metadata):
    calls = [
        stub.CreateJob(jobs_pb2.CreateJobRequest(), metadata=metadata),
        stub.GetJob(jobs_pb2.GetJobRequest(job_id=UNKNOWN), metadata=metadata),
        stub.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata),
        stub.CancelJob(jobs_pb2.CancelJobRequest(job_id=UNKNOWN), metadata=metadata),
        stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=UNKNOWN), metadata=metadata).read(),
        stub.GetQueueStatus(jobs_pb2.GetQueueStatusRequest(), metadata=metadata),
    ]

    for call in calls:
        error = await refused(call)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_queue_status_tells_the_depth_of_each_queue(stub, alice):
    await create(stub, alice)

    status = await stub.GetQueueStatus(jobs_pb2.GetQueueStatusRequest(), metadata=alice)

    assert status.queue_depth == 1
    assert [queue.name for queue in status.queues] == ["sdxl_queue", "wan_queue", "enhancer_queue"]
    sdxl, wan, _ = status.queues
    assert (sdxl.depth, sdxl.running, sdxl.renderer_count) == (1, 1, 1)
    assert sdxl.oldest_wait.ToTimedelta() == timedelta(seconds=2.5)
    assert not wan.HasField("oldest_wait")


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(0, 0), (0, 1), (-5, 0), (86_400, 1), (2**63 - 1, 0), (-(2**63), 0), (1, 2**31 - 1), (1, -1), (5, -(2**31))],
)
async def test_a_time_to_start_that_can_not_be_is_refused_by_name(stub, alice, jobs, seconds, nanos):
    error = await refused(create(stub, alice, start_timeout=Duration(seconds=seconds, nanos=nanos)))

    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert [violation.field for violation in error.fields] == ["start_timeout"]
    assert jobs.accepted == []


@pytest.mark.parametrize(("seconds", "nanos", "expected"), [(1, 0, 1.0), (86_400, 0, 86_400.0), (2, 500_000_000, 2.5)])
async def test_a_job_may_say_by_when_it_must_start(stub, alice, jobs, seconds, nanos, expected):
    await create(stub, alice, start_timeout=Duration(seconds=seconds, nanos=nanos))
    await create(stub, alice)

    assert [job.start_timeout_s for job in jobs.accepted] == [expected, None]
