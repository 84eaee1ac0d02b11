"""The enhancer as its users meet it: over a real channel, with the engine in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from ourvidz.api.enhance.v1 import enhance_pb2
from ourvidz_enhancer.task import Language, Medium
from ourvidz_serving.engines.process import EngineState
from support.enhancer import Enhancer, failure_of, one_word_model, read_all, serving, task, write

ASKED = enhance_pb2.EnhanceRequest(prompt="woman walking", medium=enhance_pb2.MEDIUM_VIDEO)


# All on the loop that the shared enhancer lives on.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(qwen2_cache: Path) -> AsyncIterator[Enhancer]:
    async with serving(qwen2_cache) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def enhancer(shared: Enhancer) -> Enhancer:
    """One enhancer for all tests that leave it as they find it; its slot is free."""
    await shared.until_free()
    return shared


async def begin(enhancer: Enhancer) -> grpc.aio.UnaryStreamCall:
    """Start a text and return its call once the first piece is there."""
    call = enhancer.stub.Enhance(ASKED)
    responses = aiter(call)
    assert (await anext(responses)).HasField("accepted")
    assert (await anext(responses)).HasField("piece")
    return call


async def test_a_text_comes_as_accepted_pieces_and_finished(enhancer, engine) -> None:
    names = ("ourvidz_enhancements_total", "ourvidz_enhance_tokens_total", "ourvidz_enhance_seconds_count")
    before = [enhancer.metric(name) for name in names]
    first, *pieces, last = await read_all(enhancer.stub.Enhance(ASKED))
    assert first.accepted.model == "miniature"
    assert {piece.WhichOneof("event") for piece in pieces} == {"piece"}
    finished = last.finished
    assert "".join(piece.piece.text for piece in pieces).strip() == finished.text
    expected = (await asyncio.to_thread(write, engine, task("woman walking", medium=Medium.VIDEO)))[0]
    assert (finished.text, finished.token_count) == (expected.text, expected.token_count)
    assert (finished.truncated, finished.model, list(finished.warnings)) == (False, "miniature", [])
    assert [timing.stage for timing in finished.timings] == ["prefill", "generate"]
    assert all(timing.duration.ToNanoseconds() > 0 for timing in finished.timings)
    grown = [enhancer.metric(name) - value for name, value in zip(names, before, strict=True)]
    assert grown == [1, finished.token_count, 1]


async def test_every_field_of_a_request_counts(enhancer, engine) -> None:
    request = enhance_pb2.EnhanceRequest(
        prompt="woman walking",
        medium=enhance_pb2.MEDIUM_IMAGE,
        language=enhance_pb2.LANGUAGE_CHINESE,
        max_token_count=30,
        max_character_count=500,
        seed=11,
    )
    finished = (await read_all(enhancer.stub.Enhance(request)))[-1].finished
    asked = task(medium=Medium.IMAGE, language=Language.CHINESE, max_token_count=30, max_character_count=500, seed=11)
    assert finished.text == (await asyncio.to_thread(write, engine, asked))[0].text
    assert finished.truncated


async def test_warnings_reach_the_caller(enhancer) -> None:
    finished = (await read_all(enhancer.stub.Enhance(enhance_pb2.EnhanceRequest(prompt="ruko zabe " * 1000))))[-1]
    [warning] = finished.finished.warnings
    assert "longer than the language model reads" in warning


async def test_an_enhancer_describes_itself(enhancer) -> None:
    about = await enhancer.stub.GetEnhancer(enhance_pb2.GetEnhancerRequest())
    assert (about.model, about.model_state, about.model_error) == ("miniature", about.MODEL_STATE_READY, "")
    assert (about.slot_count, about.busy_slot_count, about.max_token_count) == (1, 0, 512)
    assert (about.draining, about.engine_generation) == (False, 1)
    assert len(about.instance_id) == 32
    assert enhancer.metric("ourvidz_enhance_model_state", state="ready") == 1


async def test_a_second_call_is_told_when_to_come_again(enhancer) -> None:
    call = await begin(enhancer)
    about = await enhancer.stub.GetEnhancer(enhance_pb2.GetEnhancerRequest())
    assert about.busy_slot_count == enhancer.metric("ourvidz_enhance_busy_slots") == 1
    error = await failure_of(enhancer.stub.Enhance(ASKED))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUSY")
    assert error.retry_after_s is not None
    assert 0.5 <= error.retry_after_s <= 60
    await read_all(call)
    assert (await read_all(enhancer.stub.Enhance(ASKED)))[-1].HasField("finished")


async def test_ending_the_call_stops_the_model_and_the_next_call_is_served(enhancer) -> None:
    before = enhancer.metric("ourvidz_enhancements_total", outcome="cancelled")
    call = await begin(enhancer)
    call.cancel()
    await enhancer.until_free()
    assert enhancer.metric("ourvidz_enhancements_total", outcome="cancelled") == before + 1
    assert (await read_all(enhancer.stub.Enhance(ASKED)))[-1].HasField("finished")
    assert enhancer.engine.generation == 1


async def test_a_bad_request_names_its_fields(enhancer) -> None:
    error = await failure_of(enhancer.stub.Enhance(enhance_pb2.EnhanceRequest(max_token_count=513)))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert [violation.field for violation in error.fields] == ["prompt", "max_token_count"]


async def test_an_engine_that_dies_ends_its_call_and_is_replaced(qwen2_cache) -> None:
    async with serving(qwen2_cache) as enhancer:
        call = await begin(enhancer)
        await enhancer.engine.replace("a test")
        error = await failure_of(call)
        assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "ENGINE_DIED")
        assert enhancer.metric("ourvidz_enhancements_total", outcome="engine_died") == 1
        await enhancer.until(lambda: enhancer.engine.state is EngineState.READY)
        assert enhancer.engine.generation == 2
        assert (await read_all(enhancer.stub.Enhance(ASKED)))[-1].HasField("finished")


async def test_a_model_that_can_t_be_loaded_is_told_and_tried_again(qwen2_cache, tmp_path) -> None:
    async with serving(qwen2_cache, ready=False, model=str(tmp_path / "gone")) as enhancer:
        error = await failure_of(enhancer.stub.Enhance(ASKED))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_NOT_LOADED")
        assert error.retry_after_s is not None
        await enhancer.until(lambda: enhancer.engine.state is EngineState.FAILED)
        about = await enhancer.stub.GetEnhancer(enhance_pb2.GetEnhancerRequest())
        assert about.model_state == about.MODEL_STATE_FAILED
        assert "there is no model at" in about.model_error
        await enhancer.until(lambda: enhancer.engine.generation > 1)


async def test_a_model_that_writes_nothing_is_no_success(qwen2_cache, tmp_path) -> None:
    model = one_word_model(qwen2_cache, tmp_path / "silent", "<|endoftext|>")
    async with serving(qwen2_cache, model=model, tokenizer="miniature") as enhancer:
        error = await failure_of(enhancer.stub.Enhance(ASKED))
        assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "ENGINE_FAILED")
        assert error.message == "the model wrote nothing"
        # It is the model's way, and no reason to load it again.
        assert enhancer.engine.generation == 1


async def test_a_server_that_drains_lets_a_text_end_and_takes_no_other(qwen2_cache) -> None:
    async with serving(qwen2_cache, drain_grace_s=60) as enhancer:
        call = await begin(enhancer)
        draining = asyncio.create_task(enhancer.servicer.drain(30))
        await asyncio.sleep(0)
        error = await failure_of(enhancer.stub.Enhance(ASKED))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert (await enhancer.stub.GetEnhancer(enhance_pb2.GetEnhancerRequest())).draining
        assert (await read_all(call))[-1].HasField("finished")
        await draining


async def test_a_text_that_the_drain_has_no_time_for_is_stopped_and_says_so(qwen2_cache) -> None:
    async with serving(qwen2_cache) as enhancer:
        call = await begin(enhancer)
        draining = asyncio.create_task(enhancer.servicer.drain(0))
        error = await failure_of(call)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        await draining
        assert enhancer.servicer.busy_slot_count == 0
