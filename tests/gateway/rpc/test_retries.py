"""What the gateway's errors make of a client whose gRPC repeats calls by itself."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz.channel import open_async_channel
from ourvidz_gateway.errors import DatabaseUnavailable, NoRenderer, QueueFull
from ourvidz_gateway.rpc import add_services
from ourvidz_serving.server import Server
from support import fronts
from support.memory_jobs import MemoryJobs


class CountingJobs(MemoryJobs):
    """Counts how often it is asked for a job."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def accept(self, job):
        self.asked += 1
        return await super().accept(job)


@pytest.fixture
def jobs() -> CountingJobs:
    return CountingJobs()


@pytest.fixture
async def stub(jobs: CountingJobs, tmp_path: Path) -> AsyncIterator[jobs_pb2_grpc.JobServiceStub]:
    """A stub over the channel that our own clients use."""
    front = fronts.front(jobs, tmp_path / "objects", grpc_port=0, metrics_port=0)
    server = Server(front.settings, name="gateway", require_service_token=False)
    add_services(server, front)
    await server.start()
    async with open_async_channel(f"127.0.0.1:{server.port}") as channel:
        yield jobs_pb2_grpc.JobServiceStub(channel)
    await server.drain()


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (QueueFull("1000 jobs wait already.", retry_after_s=10), 1),
        (NoRenderer("No wan renderer is configured."), 1),
        (DatabaseUnavailable("The database is out of reach."), 4),
    ],
    ids=["a full queue", "no renderer", "a database that may be back"],
)
async def test_only_what_a_moment_can_change_is_asked_for_again(stub, alice, jobs, error, asked):
    request = jobs_pb2.CreateJobRequest(job_type="sdxl_image_fast", prompt="a lighthouse", request_id="one")
    with jobs.failing(error), pytest.raises(grpc.aio.AioRpcError):
        await stub.CreateJob(request, metadata=alice)

    assert jobs.asked == asked
