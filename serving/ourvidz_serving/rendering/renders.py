"""All renders of one server: which ones run, who gets the engine, and how the last ones ended."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakValueDictionary

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.engines.errors import LOADING_RETRY_S, ModelNotLoaded
from ourvidz_serving.engines.process import EngineProcess, EngineState
from ourvidz_serving.errors import Busy, Draining, ServiceError
from ourvidz_serving.rendering.clips import ClipEncoderFactory
from ourvidz_serving.rendering.engine import EngineInfo
from ourvidz_serving.rendering.errors import (
    RenderExists,
    RenderNotFound,
    RenderStopped,
    from_store,
)
from ourvidz_serving.rendering.manifest import read_manifest, request_sha256
from ourvidz_serving.rendering.metrics import RenderMetrics
from ourvidz_serving.rendering.policy import RenderPolicy
from ourvidz_serving.rendering.references import ReferenceReader
from ourvidz_serving.rendering.render import Render
from ourvidz_serving.rendering.uploads import Uploads
from ourvidz_serving.rendering.validation import check_limits
from ourvidz_serving.rendering.work import sampling_of
from ourvidz_serving.storage import ObjectStore, StoreError

SLOT_COUNT = 1
"""A server has one engine, and an engine renders one request at a time."""

_SHORTEST_RETRY_S = 0.5
_LONGEST_RETRY_S = 60.0


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a render ended, for callers that ask again soon."""

    sha256: bytes
    error: ServiceError | None
    """None: it finished, and its manifest says how."""
    forget_at: float


class Renders:
    """The renders of one engine, by their ids.

    The slot is free again as soon as the engine is done: storing the last outputs of a render overlaps the next one.
    How many outputs may wait to be stored is bounded for all renders together, and at the bound the engine waits.

    How a render ended is remembered for some minutes, so that a caller who lost its stream learns of it. After that,
    and after a restart, only the manifest among the outputs tells that a render took place.
    """

    def __init__(
        self,
        engine: EngineProcess[EngineInfo],
        store: ObjectStore,
        policy: RenderPolicy,
        metrics: RenderMetrics,
        clip_encoder: ClipEncoderFactory | None = None,
    ) -> None:
        self.draining = False
        self._engine = engine
        self._store = store
        self._policy = policy
        self._metrics = metrics
        self._references = ReferenceReader(store, policy)
        self._uploads = Uploads(store, policy, metrics)
        self._clip_encoder = clip_encoder
        self._running: dict[str, Render] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_engine: Render | None = None
        self._ended: OrderedDict[str, _Ended] = OrderedDict()
        self._doors: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def busy_slot_count(self) -> int:
        """How many slots are taken now."""
        return 0 if self._in_engine is None else 1

    async def open(self, request: render_pb2.RenderRequest) -> Render | render_pb2.Manifest:
        """Return the render that runs or starts for a request, or the manifest of one that finished.

        The request has passed `check_request`. Raises how the render ended if it failed or was cancelled a short time
        ago, and `RenderExists`, `RenderNotFound`, `InvalidRequest`, `Draining`, `ModelNotLoaded`, `Busy` and
        `StorageUnavailable`. There is no suspension between the start of a render and the return, so that the caller
        can attach before anything happens.
        """
        render = self._attachable(request)
        if render is not None:
            return render
        # Of equal calls that come at once, the first one goes through the door and the others find what it started.
        door = self._doors.setdefault(request.render_id, asyncio.Lock())
        async with door:
            return self._attachable(request) or await self._find(request) or self._start(request)

    def cancel(self, render_id: str) -> render_pb2.CancelRenderResponse.State.ValueType:
        """Stop a render and say what was found; it ends with `RenderStopped`."""
        render = self._running.get(render_id)
        if render is not None:
            render.stop(RenderStopped("the render was cancelled"))
            return render_pb2.CancelRenderResponse.STATE_CANCELLING
        if self._recall(render_id) is not None:
            return render_pb2.CancelRenderResponse.STATE_ENDED
        return render_pb2.CancelRenderResponse.STATE_UNKNOWN

    async def drain(self, grace_s: float) -> None:
        """Take no new render; give those that run `grace_s` to end, then stop them with `Draining`."""
        self.draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        await self.close()

    async def close(self) -> None:
        """Stop the renders that still run, with `Draining`, and see them end."""
        self.draining = True
        for render in list(self._running.values()):
            render.stop(Draining("the server stopped before the render could finish"))
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _attachable(self, request: render_pb2.RenderRequest) -> Render | None:
        """Return the running render of this very request, if there is one."""
        render = self._running.get(request.render_id)
        if render is not None and render.sha256 != request_sha256(request):
            raise RenderExists(f"another request is being rendered under {request.render_id}")
        return render

    async def _find(self, request: render_pb2.RenderRequest) -> render_pb2.Manifest | None:
        """Return the manifest of this very request, if it finished. Raises how it ended otherwise, if it did."""
        ended = self._recall(request.render_id)
        if ended is not None and ended.sha256 != request_sha256(request):
            raise RenderExists(f"another request was rendered under {request.render_id}")
        if ended is not None and ended.error is not None:
            raise ended.error.with_traceback(None)
        try:
            return await read_manifest(self._store, request)
        except StoreError as error:
            raise from_store(error) from error

    def _start(self, request: render_pb2.RenderRequest) -> Render:
        engine = self._engine
        if request.attach_only:
            raise RenderNotFound(f"nothing is known of a render {request.render_id}")
        if self.draining:
            raise Draining("the server is about to leave and takes no new renders")
        if engine.info is not None:
            check_limits(request, engine.info)
        if engine.info is None or engine.state is not EngineState.READY:
            raise ModelNotLoaded(
                f"the model is not loaded: {engine.error or 'it is being loaded'}", retry_after_s=LOADING_RETRY_S
            )
        place = (request.output.bucket, request.output.prefix)
        if any(place == (each.request.output.bucket, each.request.output.prefix) for each in self._running.values()):
            raise RenderExists(f"another render that runs puts its outputs into {'/'.join(place)}")
        if self._in_engine is not None:
            retry_s = min(max(self._in_engine.remaining_s() or 1.0, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)
            raise Busy("the renderer is busy", retry_after_s=retry_s)

        sampling = sampling_of(request)
        seed = sampling.seed if sampling.HasField("seed") else secrets.randbits(32)
        render = Render(
            request,
            seed=seed,
            model=engine.info.model,
            engine=engine,
            references=self._references,
            uploads=self._uploads,
            clip_encoder=self._clip_encoder,
            on_engine_free=self._free_engine,
            on_end=self._note_end,
        )
        self._running[request.render_id] = render
        self._in_engine = render
        self._metrics.busy(self.busy_slot_count)
        task = render.start()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return render

    def _free_engine(self) -> None:
        self._in_engine = None
        self._metrics.busy(self.busy_slot_count)

    def _note_end(self, render: Render) -> None:
        if render.error is not None:
            self._metrics.failed(render.error)
        elif render.finished is not None:
            self._metrics.finished(render.finished)
        del self._running[render.request.render_id]
        if isinstance(render.error, ModelNotLoaded):
            # Nothing was rendered, so that the same request may come again under the same id.
            return
        forget_at = asyncio.get_running_loop().time() + self._policy.remember_s
        self._ended[render.request.render_id] = _Ended(render.sha256, render.error, forget_at)
        while len(self._ended) > self._policy.remembered_renders:
            self._ended.popitem(last=False)

    def _recall(self, render_id: str) -> _Ended | None:
        """Return how a render ended, if that was not long ago."""
        now = asyncio.get_running_loop().time()
        while self._ended and next(iter(self._ended.values())).forget_at <= now:
            self._ended.popitem(last=False)
        return self._ended.get(render_id)
