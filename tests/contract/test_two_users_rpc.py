"""Every RPC of the gateway, tried by one user with what belongs to another: as if it had never been there.

The RPCs are taken from the contracts' descriptors: one that has no case here fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from contract.belongings import KEY, PROJECT, UNKNOWN, WAITING, Belongings, belongings
from contract.world import World
from ourvidz import rpc_status
from ourvidz_gateway.rpc import SERVICES
from support import fronts

OK = grpc.StatusCode.OK

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alices(world: World) -> Belongings:
    return await belongings(world, "alice")


def methods() -> list[MethodDescriptor]:
    """Every RPC that the gateway serves."""
    pool = descriptor_pool.Default()
    return [method for service in SERVICES for method in pool.FindServiceByName(service).methods]


def path_of(method: MethodDescriptor) -> str:
    return f"{method.containing_service.full_name}/{method.name}"


OPERATORS = [method for method in methods() if method.containing_service.full_name.startswith("ourvidz.api.admin.")]

RPC_BY_ID: dict[str, Callable[[Belongings], dict[str, Any]]] = {
    "ourvidz.api.jobs.v1.JobService/GetJob": lambda alice: {"job_id": alice.job.id},
    "ourvidz.api.jobs.v1.JobService/CancelJob": lambda alice: {"job_id": alice.waiting},
    "ourvidz.api.jobs.v1.JobService/WatchJob": lambda alice: {"job_id": alice.job.id},
    "ourvidz.api.assets.v1.AssetService/DeleteReferenceImage": lambda alice: {"reference_image_id": alice.reference.id},
    "ourvidz.api.assets.v1.AssetService/DeleteAsset": lambda alice: {"asset_id": alice.job.assets[0].id},
}

# Requests to which somebody who has nothing is answered with `reply`.
RPC_OWN: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "ourvidz.api.jobs.v1.JobService/ListJobs": ([{}, {"project_id": PROJECT}, {"job_type": WAITING}], {}),
    "ourvidz.api.jobs.v1.JobService/GetCredits": ([{}], {"available": 1000}),
    "ourvidz.api.assets.v1.AssetService/ListReferenceImages": ([{}], {}),
    "ourvidz.api.assets.v1.AssetService/ListAssets": ([{}, {"project_id": PROJECT}], {}),
}

RPC_APART = {
    "ourvidz.api.jobs.v1.JobService/CreateJob",
    "ourvidz.api.jobs.v1.JobService/GetQueueStatus",  # of all users' jobs together
    "ourvidz.api.assets.v1.AssetService/UploadReferenceImage",
}


async def test_every_rpc_has_a_case():
    assert len(OPERATORS) >= 6
    assert sorted(path_of(method) for method in methods()) == sorted(
        {*RPC_BY_ID, *RPC_OWN, *RPC_APART, *(path_of(method) for method in OPERATORS)}
    )


@dataclass
class Caller:
    """Somebody who calls any RPC by its name."""

    channel: grpc.aio.Channel
    token: str

    async def call(self, path: str, **fields: Any) -> Any:
        """Call with one message; return the first answer."""
        method = next(each for each in methods() if path_of(each) == path)
        request, reply = (GetMessageClass(each) for each in (method.input_type, method.output_type))
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        multicallable = getattr(self.channel, kind)(
            f"/{path}", request_serializer=request.SerializeToString, response_deserializer=reply.FromString
        )
        message = request(**fields)
        metadata = (("authorization", f"Bearer {self.token}"),)
        call = multicallable(iter([message]) if method.client_streaming else message, metadata=metadata)
        return await anext(aiter(call)) if method.server_streaming else await call

    async def code(self, path: str) -> grpc.StatusCode:
        try:
            await self.call(path)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return OK

    async def refusal(self, path: str, **fields: Any) -> rpc_status.ParsedError:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.call(path, **fields)
        return rpc_status.parse(refused.value)


@pytest_asyncio.fixture(loop_scope="module")
async def bobs_calls(world: World):
    async with world.channel() as channel:
        yield Caller(channel, fronts.token(f"bob-{uuid4().hex}"))


@pytest.mark.parametrize("path", RPC_BY_ID)
async def test_what_is_anothers_is_not_there(bobs_calls: Caller, alices: Belongings, path: str):
    ((field, found),) = RPC_BY_ID[path](alices).items()
    theirs, nobodys = [await bobs_calls.refusal(path, **{field: each}) for each in (found, UNKNOWN)]
    assert theirs.code is nobodys.code is grpc.StatusCode.NOT_FOUND
    assert str(theirs).replace(found, "<id>") == str(nobodys).replace(UNKNOWN, "<id>")


@pytest.mark.parametrize("path", RPC_OWN)
async def test_lists_and_counts_are_as_if_there_were_nobody_else(bobs_calls: Caller, alices: Belongings, path: str):
    requests, expected = RPC_OWN[path]
    for request in requests:
        reply = await bobs_calls.call(path, **request)
        assert {field.name: value for field, value in reply.ListFields()} == expected


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
async def test_nobody_is_told_anything_without_a_token(world: World, method: MethodDescriptor):
    async with world.channel() as channel:
        refused = await Caller(channel, "x").refusal(path_of(method))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_creating_and_uploading_over_grpc_touch_nothing_of_anothers(bobs_calls: Caller, alices: Belongings):
    service = "ourvidz.api.jobs.v1.JobService"
    job = {"job_type": WAITING, "prompt": "a fox"}
    reply = await bobs_calls.call(f"{service}/CreateJob", **job, request_id=KEY)
    assert reply.job.id != alices.waiting
    url = alices.reference.url
    picture = {"job_type": "sdxl_image_fast", "prompt": "a fox"}
    theirs, nobodys = [
        await bobs_calls.refusal(f"{service}/CreateJob", **picture, reference_image_url=each)
        for each in (url, url.replace(alices.reference.id, UNKNOWN))
    ]
    assert theirs.reason == "INVALID_REFERENCE_IMAGE"
    assert theirs == nobodys
    assert alices.job.id not in str(await bobs_calls.call(f"{service}/GetQueueStatus"))


@pytest.mark.parametrize("method", OPERATORS, ids=lambda method: method.name)
async def test_operators_calls_are_denied_to_users_before_anything_is_read(
    bobs_calls: Caller, world: World, alices: Belongings, method: MethodDescriptor
):
    known = {"user_id": "alice", "amount": 5, "job_id": alices.job.id, "delivery_id": alices.job.id}
    fields = {name: value for name, value in known.items() if name in method.input_type.fields_by_name}
    for request in ({}, fields):
        refused = await bobs_calls.refusal(path_of(method), **request)
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert refused.fields == ()
    for claims in ({"role": "authenticated"}, {"role": ["service_role"]}, {"user_role": "service_role"}):
        caller = Caller(bobs_calls.channel, fronts.token("bob", **claims))
        assert (await caller.refusal(path_of(method), **fields)).code is grpc.StatusCode.PERMISSION_DENIED
    nobody = Caller(bobs_calls.channel, "x")
    assert (await nobody.refusal(path_of(method))).code is grpc.StatusCode.UNAUTHENTICATED


async def test_an_operator_may_call_them(world: World):
    async with world.channel() as channel:
        operator = Caller(channel, fronts.token("ops", role="service_role"))
        codes = {method.name: await operator.code(path_of(method)) for method in OPERATORS}
    # Without any field, some have too little to go by.
    assert set(codes.values()) <= {OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert codes["ListDeliveries"] is codes["ListQuarantined"] is OK
