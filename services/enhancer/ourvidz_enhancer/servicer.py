"""The EnhanceService: gRPC in front of the engine, which does one prompt at a time."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from prometheus_client import CollectorRegistry

from ourvidz.api.enhance.v1 import enhance_pb2, enhance_pb2_grpc
from ourvidz_enhancer.metrics import EnhancerMetrics
from ourvidz_enhancer.task import MAX_TOKENS, EnhancerInfo, EnhanceTask, Written, Wrote
from ourvidz_enhancer.validation import read_request
from ourvidz_serving.engines.engine import EngineError, Timed, Warned
from ourvidz_serving.engines.errors import LOADING_RETRY_S, FailedInEngine, ModelNotLoaded, from_engine
from ourvidz_serving.engines.process import EngineProcess, EngineState
from ourvidz_serving.errors import Busy, Draining, PromptRefused, ServiceError
from ourvidz_serving.prompt_floor import floor_violation

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

SLOT_COUNT = 1
"""A server has one engine, and an engine writes one text at a time."""

_log = structlog.get_logger(__name__)

_MODEL_STATES = {
    EngineState.LOADING: enhance_pb2.GetEnhancerResponse.MODEL_STATE_LOADING,
    EngineState.READY: enhance_pb2.GetEnhancerResponse.MODEL_STATE_READY,
    EngineState.FAILED: enhance_pb2.GetEnhancerResponse.MODEL_STATE_FAILED,
}
_SHORTEST_RETRY_S = 0.5
_LONGEST_RETRY_S = 60.0


class EnhanceServicer(enhance_pb2_grpc.EnhanceServiceServicer):
    """Serves one engine. Errors are `ServiceError`s, which the server's interceptor turns into statuses."""

    def __init__(self, engine: EngineProcess[EnhancerInfo], *, registry: CollectorRegistry) -> None:
        """Serve an engine that somebody else starts and stops; metrics go to `registry`."""
        self.draining = False
        self._engine = engine
        self._instance_id = uuid.uuid4().hex
        self._metrics = EnhancerMetrics(registry)
        self._free = asyncio.Event()
        self._free.set()
        self._began = 0.0
        self._usual_s = 1.0
        """How long the last text took."""
        self._metrics.busy(0)
        self._metrics.model(engine.state)
        engine.on_change(lambda: self._metrics.model(engine.state))

    @property
    def busy_slot_count(self) -> int:
        """How many slots are taken now: until the engine has stopped, also of calls that are gone."""
        return 0 if self._free.is_set() else SLOT_COUNT

    async def Enhance(  # noqa: N802  # the contract's name
        self,
        request: enhance_pb2.EnhanceRequest,
        context: Context,  # noqa: ARG002  # gRPC passes it
    ) -> AsyncIterator[enhance_pb2.EnhanceResponse]:
        """Rewrite a prompt, and stream the new one."""
        task = read_request(request)
        info = self._take_slot()
        outcome = "cancelled"
        try:
            yield enhance_pb2.EnhanceResponse(accepted=enhance_pb2.Accepted(model=info.model))
            # The server's interceptor closes this generator as soon as the call is lost, and that stops the engine.
            async with aclosing(self._responses(task, info)) as responses:
                async for response in responses:
                    if response.HasField("finished"):
                        outcome = "finished"
                        self._note_finished(response.finished)
                    yield response
        except ServiceError as error:
            outcome = error.reason.lower()
            raise
        finally:
            if outcome != "finished":
                self._metrics.ended(outcome)
            _log.info("enhancement ended", outcome=outcome, seconds=round(time.monotonic() - self._began, 3))
            self._metrics.busy(0)
            self._free.set()

    async def GetEnhancer(  # noqa: N802  # the contract's name
        self,
        request: enhance_pb2.GetEnhancerRequest,  # noqa: ARG002  # gRPC passes it
        context: Context,  # noqa: ARG002  # gRPC passes it
    ) -> enhance_pb2.GetEnhancerResponse:
        """Describe this enhancer."""
        engine = self._engine
        return enhance_pb2.GetEnhancerResponse(
            model=engine.info.model if engine.info is not None else "",
            model_state=_MODEL_STATES[engine.state],
            model_error=engine.error,
            slot_count=SLOT_COUNT,
            busy_slot_count=self.busy_slot_count,
            draining=self.draining,
            max_token_count=MAX_TOKENS,
            engine_generation=engine.generation,
            instance_id=self._instance_id,
        )

    async def drain(self, grace_s: float) -> None:
        """Take no new prompt; give the one that is being rewritten `grace_s` to end, then stop it with `Draining`."""
        self.draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._free.wait()
        except TimeoutError:
            await self._engine.cancel()
            await self._free.wait()

    def _take_slot(self) -> EnhancerInfo:
        """Take the slot; there is no suspension between this and whatever frees it. Returns what is loaded."""
        engine = self._engine
        if self.draining:
            raise Draining("the server is about to leave and takes no new prompts")
        if engine.info is None or engine.state is not EngineState.READY:
            raise ModelNotLoaded(
                f"the model is not loaded: {engine.error or 'it is being loaded'}", retry_after_s=LOADING_RETRY_S
            )
        if not self._free.is_set():
            left_s = self._began + self._usual_s - time.monotonic()
            raise Busy("the enhancer is busy", retry_after_s=min(max(left_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S))
        self._free.clear()
        self._metrics.busy(SLOT_COUNT)
        self._began = time.monotonic()
        return engine.info

    async def _responses(
        self, task: EnhanceTask, info: EnhancerInfo
    ) -> AsyncGenerator[enhance_pb2.EnhanceResponse, None]:
        """Yield what the engine writes, and the whole."""
        warnings: list[str] = []
        seconds: dict[str, float] = {}
        written: Written | None = None
        try:
            async with aclosing(self._engine.run(task)) as messages:
                async for message in messages:
                    match message:
                        case Wrote(text):
                            yield enhance_pb2.EnhanceResponse(piece=enhance_pb2.Piece(text=text))
                        case Warned(text):
                            warnings.append(text)
                        case Timed(stage, spent):
                            seconds[stage] = seconds.get(stage, 0.0) + spent
                        case Written():
                            written = message
        except EngineError as error:
            if self.draining:
                raise Draining("the server stopped before the new prompt was whole") from error
            raise from_engine(error) from error
        if written is None:
            raise FailedInEngine("the model wrote nothing")
        # A model may write what nobody asked for.
        if floor_violation(written.text):
            raise PromptRefused("The text that was written is not allowed here.", field="prompt")
        finished = enhance_pb2.Finished(
            text=written.text,
            truncated=written.truncated,
            token_count=written.token_count,
            timings=[_timing(stage, spent) for stage, spent in seconds.items()],
            model=info.model,
            warnings=warnings,
        )
        yield enhance_pb2.EnhanceResponse(finished=finished)

    def _note_finished(self, finished: enhance_pb2.Finished) -> None:
        self._usual_s = time.monotonic() - self._began
        self._metrics.finished(self._usual_s, finished.token_count)


def _timing(stage: str, seconds: float) -> enhance_pb2.StageTiming:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return enhance_pb2.StageTiming(stage=stage, duration=duration)
