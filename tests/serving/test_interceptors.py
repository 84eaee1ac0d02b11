"""What stands around every call, seen from the caller's side of a real channel."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from structlog.testing import capture_logs

from ourvidz.api.assets.v1.assets_pb2 import (
    ReferenceImage,
    UploadHeader,
    UploadReferenceImageRequest,
    UploadReferenceImageResponse,
)
from ourvidz.api.enhance.v1.enhance_pb2 import EnhanceRequest, EnhanceResponse, GetEnhancerRequest, GetEnhancerResponse
from ourvidz.rpc_status import FieldViolation, parse
from ourvidz_serving.errors import Busy, InvalidRequest, NotFound
from support.scripted_server import ASSETS, ENHANCE, piece, read_all, serve

TOKEN = "a-token-of-the-services"


class ImageNotFound(NotFound):
    reason = "IMAGE_NOT_FOUND"


def ended(lines: list[dict]) -> list[dict]:
    return [line for line in lines if line["event"] == "call ended"]


async def test_an_error_of_ours_reaches_the_caller_with_reason_fields_and_retry() -> None:
    async def get(request, context):
        raise InvalidRequest("seed must be a whole number", field="seed", retry_after_s=3)

    async with serve() as running:
        running.scripted.get = get
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.enhancer.GetEnhancer(GetEnhancerRequest())
    parsed = parse(raised.value)
    assert parsed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert parsed.reason == "INVALID_REQUEST"
    assert parsed.fields == (FieldViolation("seed", "seed must be a whole number"),)
    assert parsed.retry_after_s == 3


async def test_an_error_amid_a_stream_comes_after_what_was_sent() -> None:
    async def enhance(request, context):
        yield piece("once")
        raise Busy("no room for the rest", retry_after_s=1)

    received: list[EnhanceResponse] = []
    async with serve() as running:
        running.scripted.enhance = enhance
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await read_all(running.enhancer.Enhance(EnhanceRequest(prompt="a cat")), into=received)
    assert received == [piece("once")]
    assert parse(raised.value).reason == "BUSY"
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_error_ends_an_upload_that_is_still_being_sent() -> None:
    async def upload(requests, context):
        async for request in requests:
            raise ImageNotFound(f"{request.header.filename} is none")

    never = asyncio.Event()

    async def parts():
        yield UploadReferenceImageRequest(header=UploadHeader(filename="cat.png"))
        await never.wait()

    async with serve() as running:
        running.scripted.upload = upload
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.assets.UploadReferenceImage(parts())
    assert parse(raised.value).reason == "IMAGE_NOT_FOUND"
    assert raised.value.details() == "cat.png is none"


async def test_all_kinds_of_calls_pass_unchanged() -> None:
    async def get(request, context):
        return GetEnhancerResponse(model="miniature")

    async def enhance(request, context):
        for word in request.prompt.split():
            yield piece(word)

    async def upload(requests, context):
        size = 0
        async for request in requests:
            size += len(request.chunk)
        return UploadReferenceImageResponse(reference_image=ReferenceImage(size_bytes=size))

    async def parts():
        for _ in range(3):
            yield UploadReferenceImageRequest(chunk=b"x" * 1000)

    async with serve() as running:
        running.scripted.get, running.scripted.enhance, running.scripted.upload = get, enhance, upload
        assert (await running.enhancer.GetEnhancer(GetEnhancerRequest())).model == "miniature"
        words = [r.piece.text async for r in running.enhancer.Enhance(EnhanceRequest(prompt="a cat"))]
        uploaded = await running.assets.UploadReferenceImage(parts())
    assert words == ["a", "cat"]
    assert uploaded.reference_image.size_bytes == 3000


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_unforeseen_exception_is_neutral_outside_and_whole_in_the_log(streamed: bool) -> None:
    secret = "SELECT password FROM users"

    async def get(request, context):
        raise RuntimeError(secret)

    async def enhance(request, context):
        yield piece("once")
        raise RuntimeError(secret)

    async with serve() as running:
        running.scripted.get, running.scripted.enhance = get, enhance
        enhancer = running.enhancer
        call = read_all(enhancer.Enhance(EnhanceRequest())) if streamed else enhancer.GetEnhancer(GetEnhancerRequest())
        with capture_logs() as lines, pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert parse(raised.value).reason == "INTERNAL"
    assert secret not in str(raised.value)
    assert [str(line["exc_info"]) for line in lines if line["event"] == "handler failed"] == [secret]
    assert [(line["code"], line["log_level"]) for line in ended(lines)] == [("INTERNAL", "error")]


async def test_a_handler_whose_own_wait_is_cancelled_still_answers() -> None:
    async def get(request, context):
        elsewhere = asyncio.get_running_loop().create_future()
        elsewhere.cancel()
        await elsewhere

    async with serve() as running:
        running.scripted.get = get
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.enhancer.GetEnhancer(GetEnhancerRequest())
    assert raised.value.code() is grpc.StatusCode.INTERNAL


async def test_a_handler_may_abort_by_itself() -> None:
    async def get(request, context):
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "past the end")

    async with serve() as running:
        running.scripted.get = get
        with capture_logs() as lines, pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.enhancer.GetEnhancer(GetEnhancerRequest())
    assert raised.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert raised.value.details() == "past the end"
    assert [line["code"] for line in ended(lines)] == ["OUT_OF_RANGE"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_bytes_that_are_no_message_are_the_callers_fault(streamed: bool) -> None:
    async def upload(requests, context):
        async for _ in requests:
            pass

    async with serve() as running:
        running.scripted.upload = upload
        nonsense = b"\xff\xff\xff"
        call = (
            running.channel.stream_unary(f"/{ASSETS}/UploadReferenceImage")(iter([nonsense]))
            if streamed
            else running.channel.unary_unary(f"/{ENHANCE}/GetEnhancer")(nonsense)
        )
        with capture_logs() as lines, pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert parse(raised.value).reason == "INVALID_REQUEST"
    assert not [line for line in lines if line["log_level"] == "error"]


async def test_a_call_is_counted_and_timed_once() -> None:
    async def enhance(request, context):
        for word in ("one", "two", "three"):
            yield piece(word)

    labels = {"grpc_service": ENHANCE, "grpc_method": "Enhance"}
    async with serve() as running:
        running.scripted.enhance = enhance
        for _ in range(2):
            assert len([each async for each in running.enhancer.Enhance(EnhanceRequest())]) == 3
        assert running.metric("grpc_server_started_total", **labels) == 2
        assert running.metric("grpc_server_handled_total", **labels) == 2
        assert running.metric("grpc_server_handled_total", **labels, grpc_code="OK") == 2
        assert running.metric("grpc_server_handling_seconds_count", **labels) == 2


async def test_methods_that_are_not_there_share_one_label() -> None:
    async with serve() as running:
        for name in ("One", "Two"):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await running.channel.unary_unary(f"/made.up/{name}")(b"")
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        unknown = {"grpc_service": "unknown", "grpc_method": "unknown", "grpc_code": "UNIMPLEMENTED"}
        assert running.metric("grpc_server_handled_total", **unknown) == 2
        assert running.metric("grpc_server_handled_total") == 2


async def test_a_caller_that_cancels_stops_the_handler_and_is_no_error() -> None:
    stopped = asyncio.Event()

    async def enhance(request, context):
        try:
            yield piece("once")
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with serve() as running:
        running.scripted.enhance = enhance
        with capture_logs() as lines:
            call = running.enhancer.Enhance(EnhanceRequest())
            await call.read()
            call.cancel()
            await asyncio.wait_for(stopped.wait(), 10)
        assert [(line["code"], line["log_level"]) for line in lines] == [("CANCELLED", "info")]
        assert running.metric("grpc_server_handled_total", grpc_code="CANCELLED") == 1
        assert running.metric("grpc_server_handled_total") == 1


async def test_a_caller_that_leaves_amid_a_write_stops_the_handler() -> None:
    stopped = asyncio.Event()

    async def enhance(request, context):
        try:
            while True:  # more than the connection's window takes, so that a write must wait
                yield piece("x" * 1_000_000)
        finally:
            stopped.set()

    async with serve() as running:
        running.scripted.enhance = enhance
        call = running.enhancer.Enhance(EnhanceRequest())
        await call.read()
        call.cancel()
        await asyncio.wait_for(stopped.wait(), 10)


@pytest.mark.parametrize("shown", [None, "another-token-entirely", TOKEN + "x"])
async def test_a_call_without_the_service_token_is_refused_before_its_handler_runs(shown: str | None) -> None:
    async with serve(service_token=TOKEN, require_service_token=True, show_token=shown) as running:
        with capture_logs() as lines, pytest.raises(grpc.aio.AioRpcError) as raised:
            await read_all(running.enhancer.Enhance(EnhanceRequest()))
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert parse(raised.value).reason == "UNAUTHENTICATED"
    assert TOKEN not in str(raised.value)
    assert TOKEN not in str(lines)


async def test_a_call_with_the_service_token_passes() -> None:
    async def get(request, context):
        return GetEnhancerResponse(model="miniature")

    async with serve(service_token=TOKEN, require_service_token=True, show_token=TOKEN) as running:
        running.scripted.get = get
        assert (await running.enhancer.GetEnhancer(GetEnhancerRequest())).model == "miniature"


async def test_a_server_that_checks_users_itself_takes_calls_with_their_tokens() -> None:
    async def get(request, context):
        return GetEnhancerResponse(model=dict(context.invocation_metadata())["authorization"])

    async with serve(service_token=TOKEN, show_token="a-users-own-token") as running:
        running.scripted.get = get
        assert (await running.enhancer.GetEnhancer(GetEnhancerRequest())).model == "Bearer a-users-own-token"


async def test_each_call_leaves_one_line_and_a_probe_only_one_for_debugging() -> None:
    async def get(request, context):
        raise ImageNotFound("none")

    async with serve() as running:
        running.scripted.get = get
        with capture_logs() as lines:
            with pytest.raises(grpc.aio.AioRpcError):
                await running.enhancer.GetEnhancer(GetEnhancerRequest())
            await HealthStub(running.channel).Check(HealthCheckRequest(service=ENHANCE))
    of_call, of_probe = lines
    assert of_call.pop("duration_ms") >= 0
    assert of_call == {
        "event": "call ended",
        "log_level": "info",
        "method": f"/{ENHANCE}/GetEnhancer",
        "code": "NOT_FOUND",
        "reason": "IMAGE_NOT_FOUND",
    }
    assert (of_probe["code"], of_probe["log_level"]) == ("OK", "debug")
