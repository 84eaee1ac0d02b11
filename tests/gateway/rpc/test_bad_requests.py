"""Every bad request is refused with its reason, naming the message's field, and nothing is stored."""

import grpc
import pytest

from ourvidz import rpc_status
from ourvidz.api.jobs.v1 import jobs_pb2
from support.bad_requests import BAD_REQUESTS, BadRequest


@pytest.mark.parametrize("bad", [bad for bad in BAD_REQUESTS if bad.rpc is not None], ids=lambda bad: bad.name)
async def test_is_refused_and_stores_nothing(stub, alice, jobs, bad: BadRequest):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateJob(jobs_pb2.CreateJobRequest(**bad.rpc), metadata=alice)

    error = rpc_status.parse(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == bad.reason
    assert bad.says in error.message
    assert [violation.field for violation in error.fields] == [bad.rpc_field]
    # Nobody who calls over gRPC knows what REST calls a field.
    assert bad.rpc_field == bad.rest_field or bad.rest_field not in error.message + error.fields[0].description
    assert jobs.accepted == []
