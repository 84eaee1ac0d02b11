"""The real enhancer for tests: its engine without any process around it, and the whole server on a real channel."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from ourvidz.api.enhance.v1 import enhance_pb2, enhance_pb2_grpc
from ourvidz.rpc_status import ParsedError, parse
from ourvidz_enhancer.engine import EnhancerEngine
from ourvidz_enhancer.enhancer import SERVICE
from ourvidz_enhancer.instruction import read_instruction
from ourvidz_enhancer.servicer import EnhanceServicer
from ourvidz_enhancer.settings import EnhancerSettings
from ourvidz_enhancer.task import EnhancerInfo, EnhanceSession, EnhanceTask, Language, Medium, Written, Wrote
from ourvidz_miniature.qwen2 import ensure_miniature_qwen2
from ourvidz_serving.engines.engine import LoadSession
from ourvidz_serving.engines.process import EngineProcess, EngineState
from ourvidz_serving.server import Server

Message = TypeVar("Message", bound=object)


@pytest.fixture(scope="session")
def qwen2_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the miniature."""
    cache = tmp_path_factory.mktemp("models")
    ensure_miniature_qwen2(cache)
    return cache


@pytest.fixture(scope="session")
def engine(qwen2_cache: Path) -> EnhancerEngine:
    """A loaded engine that all tests share: how one text goes must not depend on those before it."""
    return load_engine(qwen2_cache)


def engine_config(cache: Path, *, instruction: Path | None = None, **settings: Any) -> dict[str, Any]:
    """What an engine of these settings is made from; one thread, since several wait for each other on a busy machine."""
    given = EnhancerSettings(model_cache=cache, device="cpu", threads=1, **settings)
    return {**given.engine_config(), "instruction": read_instruction(instruction).model_dump()}


def load_engine(cache: Path, **settings: Any) -> EnhancerEngine:
    engine = EnhancerEngine(engine_config(cache, **settings))
    engine.load(LoadSession(lambda _: None))
    return engine


def task(prompt: str = "woman walking", **changes: Any) -> EnhanceTask:
    given: dict[str, Any] = {
        "medium": Medium.VIDEO,
        "language": Language.ENGLISH,
        "max_token_count": 512,
        "max_character_count": 10_000,
        "seed": None,
    }
    return EnhanceTask(prompt, **{**given, **changes})


class Told:
    """What an engine says during one task; `cancel_when` picks the message after which it is told to stop."""

    def __init__(self, *, cancel_when: Callable[[object], bool] = lambda _: False) -> None:
        self.messages: list[object] = []
        self._cancel_when = cancel_when
        self._cancel = threading.Event()
        self.session = EnhanceSession(self._take, self._cancel)

    def of(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def pieces(self) -> str:
        return "".join(piece.text for piece in self.of(Wrote))

    def _take(self, message: object) -> None:
        self.messages.append(message)
        if self._cancel_when(message):
            self._cancel.set()


def write(engine: EnhancerEngine, asked: EnhanceTask) -> tuple[Written, Told]:
    """Return what an engine wrote, and all that it said."""
    told = Told()
    engine.run(asked, told.session)
    [written] = told.of(Written)
    assert told.messages[-1] is written
    return written, told


def one_word_model(cache: Path, folder: Path, word: str) -> str:
    """Write a Qwen2 whose every token is the same one, whatever it reads, and return where it is."""
    shutil.copytree(ensure_miniature_qwen2(cache), folder)
    [token] = AutoTokenizer.from_pretrained(folder)(word).input_ids
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = False
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name or "embed" in name else 0.0)
        model.lm_head.weight[token] = 1.0
    model.save_pretrained(folder)
    return str(folder)


@dataclass
class Enhancer:
    """A running enhancer and a channel to it."""

    address: str
    server: Server
    servicer: EnhanceServicer
    engine: EngineProcess[EnhancerInfo]
    stub: enhance_pb2_grpc.EnhanceServiceStub

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        return sum(
            sample.value
            for family in self.server.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the engine is as the condition says."""
        changed = asyncio.Event()
        self.engine.on_change(changed.set)
        while not condition():
            await changed.wait()
            changed.clear()

    async def until_free(self) -> None:
        """Wait until the slot is free: it is a moment after a cancelled call has ended."""
        while self.servicer.busy_slot_count:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(
    cache: Path,
    *,
    ready: bool = True,
    drain_grace_s: float = 5,
    **settings: Any,
) -> AsyncIterator[Enhancer]:
    """Run an enhancer with the miniature, and wait until it is loaded unless `ready` says otherwise."""
    engine: EngineProcess[EnhancerInfo] = EngineProcess(
        "ourvidz_enhancer.engine:EnhancerEngine",
        engine_config(cache, **settings),
        first_backoff_s=0.05,
        max_backoff_s=0.05,
    )
    server = Server(
        EnhancerSettings(grpc_port=0, metrics_port=0, drain_grace_s=drain_grace_s),
        name="enhancer",
        require_service_token=True,
    )
    servicer = EnhanceServicer(engine, registry=server.registry)
    enhance_pb2_grpc.add_EnhanceServiceServicer_to_server(servicer, server.grpc)
    server.add_service(SERVICE)
    engine.on_change(lambda: server.set_serving(SERVICE, engine.state is EngineState.READY))
    server.on_drain(lambda: servicer.drain(0.5 * drain_grace_s))
    await engine.start()
    await server.start()
    address = f"127.0.0.1:{server.port}"
    channel = grpc.aio.insecure_channel(address)
    enhancer = Enhancer(address, server, servicer, engine, enhance_pb2_grpc.EnhanceServiceStub(channel))
    try:
        if ready:
            await enhancer.until(lambda: engine.state is not EngineState.LOADING)
            assert engine.state is EngineState.READY, engine.error
        yield enhancer
    finally:
        await channel.close()
        if server.metrics_port:  # not drained by the test itself
            await server.drain()
        await engine.stop()


async def read_all(call: Any) -> list[enhance_pb2.EnhanceResponse]:
    """Return all responses of a call."""
    return [response async for response in call]


async def failure_of(call: Any) -> ParsedError:
    """Read a call to its end and return how it failed."""
    try:
        await read_all(call)
    except grpc.aio.AioRpcError as error:
        return parse(error)
    raise AssertionError("the call did not fail")
