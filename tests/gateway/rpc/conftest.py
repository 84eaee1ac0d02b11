"""The gRPC front over jobs in memory, on a real server."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from ourvidz.api.jobs.v1 import jobs_pb2_grpc
from ourvidz_gateway.rpc import add_services
from ourvidz_serving.server import Server
from support import fronts
from support.memory_jobs import MemoryJobs


@pytest.fixture
def jobs() -> MemoryJobs:
    return MemoryJobs()


@pytest.fixture
async def stub(jobs: MemoryJobs, tmp_path: Path) -> AsyncIterator[jobs_pb2_grpc.JobServiceStub]:
    """A stub that has no token of its own."""
    front = fronts.front(jobs, tmp_path / "objects", grpc_port=0, metrics_port=0)
    server = Server(front.settings, name="gateway", require_service_token=False)
    add_services(server, front)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield jobs_pb2_grpc.JobServiceStub(channel)
    await server.drain()


@pytest.fixture
def alice() -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {fronts.token('alice')}"),)


@pytest.fixture
def bob() -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {fronts.token('bob')}"),)
