"""The prompt policy's floor at an enhancer that is called directly: for the prompt, and for what is written from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from ourvidz.api.enhance.v1 import enhance_pb2, enhance_pb2_grpc
from ourvidz_enhancer.enhancer import SERVICE
from ourvidz_enhancer.servicer import EnhanceServicer
from ourvidz_enhancer.task import EnhancerInfo
from ourvidz_serving.engines.process import EngineProcess, EngineState
from ourvidz_serving.server import Server
from ourvidz_serving.settings import ServerSettings
from support.enhancer import failure_of, read_all

BELOW_THE_FLOOR = "naked child"


@asynccontextmanager
async def writing(text: str) -> AsyncIterator[tuple[enhance_pb2_grpc.EnhanceServiceStub, Server]]:
    """Serve an enhancer that always writes this."""
    engine: EngineProcess[EnhancerInfo] = EngineProcess("support.fixed_writer:FixedWriter", {"text": text})
    server = Server(ServerSettings(grpc_port=0, drain_grace_s=0), name="enhancer", require_service_token=False)
    enhance_pb2_grpc.add_EnhanceServiceServicer_to_server(
        EnhanceServicer(engine, registry=server.registry), server.grpc
    )
    server.add_service(SERVICE)
    changed = asyncio.Event()
    engine.on_change(changed.set)
    await engine.start()
    await server.start()
    try:
        while engine.state is EngineState.LOADING:
            await changed.wait()
            changed.clear()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield enhance_pb2_grpc.EnhanceServiceStub(channel), server
    finally:
        await server.drain()
        await engine.stop()


async def test_a_prompt_below_the_floor_is_refused_and_takes_no_slot() -> None:
    async with writing("a red fox") as (stub, server):
        error = await failure_of(stub.Enhance(enhance_pb2.EnhanceRequest(prompt=BELOW_THE_FLOOR)))
        assert server.registry.get_sample_value("ourvidz_enhancements_total", {"outcome": "prompt_refused"}) is None

    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_REFUSED")
    assert error.message == "The prompt is not allowed here."
    assert [violation.field for violation in error.fields] == ["prompt"]


async def test_a_text_below_the_floor_is_never_finished() -> None:
    async with writing(BELOW_THE_FLOOR) as (stub, server):
        error = await failure_of(stub.Enhance(enhance_pb2.EnhanceRequest(prompt="a fox")))
        assert server.registry.get_sample_value("ourvidz_enhancements_total", {"outcome": "prompt_refused"}) == 1

    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_REFUSED")
    assert error.message == "The text that was written is not allowed here."


async def test_any_other_text_is_finished() -> None:
    async with writing("a red fox") as (stub, _):
        *_, last = await read_all(stub.Enhance(enhance_pb2.EnhanceRequest(prompt="a fox")))

    assert last.finished.text == "a red fox"
