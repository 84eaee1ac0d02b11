"""One render: from the slot that it was taken into to its last event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing

import structlog
from google.protobuf.duration_pb2 import Duration

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.engines.engine import EngineError, Loading, MemoryRung, PeakMemory, Timed, Warned
from ourvidz_serving.engines.errors import from_engine
from ourvidz_serving.engines.process import EngineProcess
from ourvidz_serving.errors import Draining, Internal, ServiceError
from ourvidz_serving.rendering.clips import ClipEncoderFactory
from ourvidz_serving.rendering.engine import (
    EngineInfo,
    FrameMade,
    Pixels,
    PreviewMade,
    ReferenceEngine,
    RenderMessage,
    RenderTask,
    StepDone,
)
from ourvidz_serving.rendering.errors import RenderStopped, StorageUnavailable
from ourvidz_serving.rendering.events import EventLog
from ourvidz_serving.rendering.manifest import request_sha256
from ourvidz_serving.rendering.outputs import OutputWriter
from ourvidz_serving.rendering.preview import encode_preview
from ourvidz_serving.rendering.references import ReferenceReader
from ourvidz_serving.rendering.uploads import Uploads
from ourvidz_serving.rendering.work import output_count, sources_of

_log = structlog.get_logger(__name__)

DEFAULT_KEEP_S = 60.0


class Render:
    """A render that runs, its events, and who watches it.

    It runs in a task of its own, whoever comes and goes. It ends in one of two ways: with a `Finished` event after
    the manifest was stored, or with an error.
    """

    def __init__(
        self,
        request: render_pb2.RenderRequest,
        *,
        seed: int,
        model: str,
        engine: EngineProcess[EngineInfo],
        references: ReferenceReader,
        uploads: Uploads,
        clip_encoder: ClipEncoderFactory | None,
        on_engine_free: Callable[[], None],
        on_end: Callable[[Render], None],
    ) -> None:
        """Describe a render; it starts with `start`.

        `on_engine_free` is called once the engine can take another render, `on_end` once this one has ended.
        """
        self.request = request
        self.sha256 = request_sha256(request)
        self.events = EventLog()
        self.error: ServiceError | None = None
        """How it failed; None while it runs and when it finished."""
        self.ended = False
        self.finished: render_pb2.Finished | None = None
        """What it made; None until it has."""
        self._seconds: dict[str, float] = {}
        self._peak_memory_bytes = 0
        self._settle_s = uploads.policy.settle_s
        self._seed = seed
        self._model = model
        self._engine = engine
        self._references = references
        self._on_engine_free = on_engine_free
        self._on_end = on_end
        self._writer = OutputWriter(
            uploads,
            request,
            seed=seed,
            model=model,
            clip_encoder=clip_encoder,
            on_uploading=self._tell_uploading,
            on_failure=self.stop,
        )
        self._warnings: list[str] = []
        self._memory_rung = ""
        self._reference_engine = ""
        self._progress: StepDone | None = None
        self._started = time.monotonic()
        self._stop_reason: ServiceError | None = None
        self._reading: asyncio.Task[dict[str, Pixels]] | None = None
        self._in_engine = False
        self._engine_stop: asyncio.Task[None] | None = None
        self._watchers = 0
        self._keep_s = 0.0
        self._keep_clock: asyncio.TimerHandle | None = None
        self._log = _log.bind(job_id=request.render_id.partition("/")[0], render_id=request.render_id)

    def start(self) -> asyncio.Task[None]:
        """Start it and return its task, which never raises and ends when the render has ended."""
        return asyncio.create_task(self._run(), name=f"render {self.request.render_id}")

    def attach(self, request: render_pb2.RenderRequest) -> None:
        """Count one more watcher; the clock of a kept render stops.

        A render is kept for the longest time that any of its watchers asked for, so that nobody who looks in for a
        moment can end what another one wants kept.
        """
        self._watchers += 1
        self._keep_s = max(self._keep_s, _keep_s(request))
        if self._keep_clock is not None:
            self._keep_clock.cancel()
            self._keep_clock = None

    def detach(self) -> None:
        """Count one watcher less; the last one gone stops the render, or starts its clock."""
        self._watchers -= 1
        if self._watchers or self.ended:
            return
        if not self._keep_s:
            self.stop(RenderStopped("the render was cancelled: its last watcher was lost"))
            return
        reason = RenderStopped(f"the render was cancelled: nobody watched it for {self._keep_s:g} s")
        self._keep_clock = asyncio.get_running_loop().call_later(self._keep_s, self.stop, reason)

    def stop(self, reason: ServiceError) -> None:
        """Make the render end within one step or one decode call; `reason` becomes its error. The first reason counts.

        Has no effect any more once the manifest is stored.
        """
        if self._stop_reason is not None or self.ended:
            return
        self._stop_reason = reason
        # Only of a cancelled render does anybody want the pictures that are finished.
        self._writer.hurry(self._settle_s if isinstance(reason, RenderStopped) else 0.0)
        if self._reading is not None:
            self._reading.cancel()
        if self._in_engine:
            self._engine_stop = asyncio.create_task(self._engine.cancel(), name="stop-engine")

    def remaining_s(self) -> float | None:
        """Guess how long the engine is still busy, in seconds, from the pace so far; None before the first step."""
        if self._progress is None:
            return None
        step, count, index, images = (
            self._progress.step,
            self._progress.step_count,
            self._progress.image_index,
            self._progress.image_count,
        )
        done = index * count + step
        return (time.monotonic() - self._started) / done * (images * count - done)

    async def _run(self) -> None:
        self._log.info("render started", seed=self._seed)
        try:
            await self._make_outputs()
        except ServiceError as error:
            self.error = error
        except asyncio.CancelledError:
            self.error = Draining("the server stopped in the middle of the render")
            raise
        except Exception:  # noqa: BLE001  # whatever it is, the watchers get an end
            self._log.exception("render failed for a reason that nobody foresaw")
            self.error = Internal("the renderer failed")
        finally:
            await self._writer.discard()
            if self._engine_stop is not None:
                await self._engine_stop
            self._end()

    async def _make_outputs(self) -> None:
        self.events.add(render_pb2.RenderResponse(accepted=render_pb2.Accepted(seed=self._seed, model=self._model)))
        try:
            pictures = await self._read_references()
            if self._stop_reason is None:
                await self._run_engine(pictures)
        finally:
            self._on_engine_free()
        outputs = await self._writer.stored()
        if self._stop_reason is not None:
            if isinstance(self._stop_reason, RenderStopped):
                # What is finished stays: whoever cancels after two of six pictures has two.
                self._stop_reason.finished.CopyFrom(render_pb2.Finished(outputs=outputs, model=self._model))
            raise self._stop_reason
        self._writer.check_complete()

        self._seconds.update(self._writer.seconds)
        finished = render_pb2.Finished(
            outputs=outputs,
            warnings=self._warnings,
            timings=[_timing(stage, seconds) for stage, seconds in self._seconds.items()],
            peak_memory_bytes=self._peak_memory_bytes,
            memory_rung=self._memory_rung,
            reference_engine=self._reference_engine,
            model=self._model,
        )
        await self._writer.seal(finished, self.events.next_index)
        self.finished = finished
        self.events.add(render_pb2.RenderResponse(finished=finished))

    async def _read_references(self) -> dict[str, Pixels]:
        """Return the reference pictures; nothing is in it when there are none, or when the render was stopped."""
        if not sources_of(self.request) or self._stop_reason is not None:
            return {}
        self.events.add(render_pb2.RenderResponse(loading=render_pb2.Loading(part="reference pictures")))
        started = time.monotonic()
        self._reading = asyncio.create_task(self._references.read(self.request), name="read-references")
        try:
            return await self._reading
        except asyncio.CancelledError:
            if self._stop_reason is None:
                raise
            return {}
        finally:
            self._reading = None
            self._seconds["load"] = time.monotonic() - started

    async def _run_engine(self, pictures: Mapping[str, Pixels]) -> None:
        """Let the engine render; returns when it is done, also when it was stopped."""
        self._in_engine = True
        task = RenderTask(_without_files(self.request).SerializeToString(), self._seed, pictures)
        try:
            # Leaving early, for whatever reason, stops the engine and waits for it.
            async with aclosing(self._engine.run(task)) as messages:
                async for message in messages:
                    await self._take(message)
        # A render that was told to stop ends for that reason, however its engine took it.
        except EngineError as error:
            if self._stop_reason is None:
                raise from_engine(error) from error
        except StorageUnavailable:
            if self._stop_reason is None:
                raise
        finally:
            self._in_engine = False

    async def _take(self, message: RenderMessage) -> None:
        match message:
            case Loading(part):
                self.events.add(render_pb2.RenderResponse(loading=render_pb2.Loading(part=part)))
            case StepDone(step, step_count, image_index, image_count):
                self._progress = message
                done = render_pb2.Step(
                    step=step, step_count=step_count, image_index=image_index, image_count=image_count
                )
                self.events.add(render_pb2.RenderResponse(step=done))
            case PreviewMade(pixels, image_index, step):
                jpeg = encode_preview(pixels)
                self.events.show(render_pb2.Preview(jpeg=jpeg, image_index=image_index, step=step))
            case FrameMade(output_index, pixels):
                await self._writer.take(output_index, pixels)
            case Warned(text):
                self._warnings.append(text)
            case Timed(stage, seconds):
                self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
            case PeakMemory(peak):
                self._peak_memory_bytes = max(self._peak_memory_bytes, peak)
            case MemoryRung(name):
                self._memory_rung = name
            case ReferenceEngine(name):
                self._reference_engine = name

    def _tell_uploading(self, index: int) -> None:
        uploading = render_pb2.Uploading(output_index=index, output_count=output_count(self.request))
        self.events.add(render_pb2.RenderResponse(uploading=uploading))

    def _end(self) -> None:
        self.ended = True
        if self._keep_clock is not None:
            self._keep_clock.cancel()
        outcome = "finished" if self.error is None else self.error.reason.lower()
        self._log.info(
            "render ended",
            outcome=outcome,
            error=self.error.message if self.error else None,
            seconds=round(time.monotonic() - self._started, 3),
        )
        self._on_end(self)
        self.events.end(self.error)


def _keep_s(request: render_pb2.RenderRequest) -> float:
    """How long a watcher wants the render kept without it, in seconds; 0: not at all."""
    if request.on_disconnect != render_pb2.ON_DISCONNECT_KEEP:
        return 0.0
    if not request.HasField("keep"):
        return DEFAULT_KEEP_S
    return float(request.keep.seconds) + request.keep.nanos / 1e9


def _without_files(request: render_pb2.RenderRequest) -> render_pb2.RenderRequest:
    """Return the request without the files in it: the engine gets the pictures themselves."""
    lighter = render_pb2.RenderRequest()
    lighter.CopyFrom(request)
    for _, source in sources_of(lighter).values():
        source.ClearField("inline")
    return lighter


def _timing(stage: str, seconds: float) -> render_pb2.StageTiming:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return render_pb2.StageTiming(stage=stage, duration=duration)
