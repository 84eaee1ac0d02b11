"""What a user is told of their credits over gRPC."""

import grpc
import pytest

from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz_gateway.rpc import add_services
from ourvidz_serving.server import Server
from support import fronts
from support.jobs import Bench
from support.memory_jobs import MemoryJobs


async def test_a_user_sees_what_can_be_spent_and_what_is_held(bench: Bench, tmp_path, alice, bob):
    await bench.add_job("alice", credits=3)
    front = fronts.front(MemoryJobs(), tmp_path / "objects", bench.database, grpc_port=0, metrics_port=0)
    server = Server(front.settings, name="gateway", require_service_token=False)
    add_services(server, front)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        for metadata, shown in ((alice, (997, 3)), (bob, (1000, 0))):
            reply = await stub.GetCredits(jobs_pb2.GetCreditsRequest(), metadata=metadata)
            assert (reply.available, reply.reserved) == shown
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetCredits(jobs_pb2.GetCreditsRequest())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await server.drain()
