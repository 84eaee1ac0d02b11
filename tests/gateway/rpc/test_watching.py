"""What a watcher over gRPC gets besides events: previews and heartbeats."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import grpc
import pytest

from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz_gateway.front import Front
from ourvidz_gateway.previews import Preview
from ourvidz_gateway.rpc.jobs import JobServicer
from ourvidz_serving.server import Server
from support import fronts
from support.memory_jobs import MemoryJobs

QUIET_S = 0.02
RENDERING = (jobs_pb2.JOB_STATE_PROCESSING, jobs_pb2.JOB_STAGE_RENDERING, 4, 1)


@pytest.fixture
def front(jobs: MemoryJobs, tmp_path: Path) -> Front:
    return fronts.front(jobs, tmp_path, grpc_port=0, metrics_port=0)


@pytest.fixture
async def stub(front: Front) -> AsyncIterator[jobs_pb2_grpc.JobServiceStub]:
    """A stub of a server that says soon that a stream lives."""
    server = Server(front.settings, name="gateway", require_service_token=False)
    jobs_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(front, heartbeat_s=QUIET_S), server.grpc)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield jobs_pb2_grpc.JobServiceStub(channel)
    await server.drain()


@pytest.fixture
async def job_id(stub, alice) -> str:
    request = jobs_pb2.CreateJobRequest(job_type="sdxl_image_fast", prompt="a lighthouse")
    return str((await stub.CreateJob(request, metadata=alice)).job.id)


async def rest_of(call) -> list[jobs_pb2.WatchJobResponse]:
    """What a call has still to say, without its heartbeats."""
    messages = []
    while (message := await call.read()) is not grpc.aio.EOF:
        messages.append(message)
    return [message for message in messages if message.sequence or message.preview_jpeg]


def standing(message: jobs_pb2.WatchJobResponse) -> tuple[int, int, int, int]:
    return message.state, message.stage, message.progress_percent, message.attempt


async def test_a_quiet_stream_says_where_the_job_stands(stub, alice, jobs, job_id):
    call = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id), metadata=alice)
    jobs.step(UUID(job_id), 1)
    assert [(await call.read()).sequence for _ in range(2)] == [1, 2]

    beats = [await call.read() for _ in range(3)]
    jobs.end(UUID(job_id))
    rest = await rest_of(call)

    assert [(beat.sequence, standing(beat), beat.WhichOneof("detail")) for beat in beats] == [(0, RENDERING, None)] * 3
    now = datetime.now(UTC)
    assert all(now - timedelta(minutes=1) < beat.event_time.ToDatetime(UTC) <= now for beat in beats)
    assert [message.sequence for message in rest] == [3]


async def test_a_stream_that_goes_on_somewhere_says_where_the_job_stands_before_anything_is_new(
    stub, alice, jobs, job_id
):
    jobs.step(UUID(job_id), 1)
    call = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id, resume_from=2), metadata=alice)

    beat = await call.read()

    assert (beat.sequence, standing(beat)) == (0, RENDERING)
    call.cancel()


async def test_previews_come_to_those_who_ask(stub, alice, front, jobs, job_id):
    previews = front.parts.previews
    jobs.step(UUID(job_id), 1)
    with previews.rendering(UUID(job_id)):
        previews.show(Preview(UUID(job_id), attempt=1, image_index=0, step=1, jpeg=b"\xff\xd8 one"))
        asking = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id, previews=True), metadata=alice)
        other = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id), metadata=alice)
        seen = [await asking.read()]
        while not seen[-1].preview_jpeg:
            seen.append(await asking.read())
        jobs.end(UUID(job_id))
        rest, others = await rest_of(asking), await rest_of(other)

    assert [message.sequence for message in seen if not message.preview_jpeg and message.sequence] == [1, 2]
    assert (seen[-1].sequence, seen[-1].preview_jpeg, standing(seen[-1])) == (0, b"\xff\xd8 one", RENDERING)
    assert [message.sequence for message in rest] == [3]
    assert [message.sequence for message in others] == [1, 2, 3]
