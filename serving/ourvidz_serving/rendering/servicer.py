"""The RenderService of any renderer: gRPC in front of the renders."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Collection
from typing import Any, TypeAlias

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry

from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz_serving.engines.process import EngineProcess, EngineState
from ourvidz_serving.errors import to_status
from ourvidz_serving.rendering.clips import ClipEncoderFactory
from ourvidz_serving.rendering.engine import EngineInfo
from ourvidz_serving.rendering.errors import RenderStopped
from ourvidz_serving.rendering.metrics import RenderMetrics
from ourvidz_serving.rendering.policy import RenderPolicy
from ourvidz_serving.rendering.renders import SLOT_COUNT, Renders
from ourvidz_serving.rendering.validation import check_render_id, check_request
from ourvidz_serving.storage import ObjectStore

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_MODEL_STATES = {
    EngineState.LOADING: render_pb2.GetRendererResponse.MODEL_STATE_LOADING,
    EngineState.READY: render_pb2.GetRendererResponse.MODEL_STATE_READY,
    EngineState.FAILED: render_pb2.GetRendererResponse.MODEL_STATE_FAILED,
}


class RenderServicer(render_pb2_grpc.RenderServiceServicer):
    """Serves one engine. It makes still images and, where it has something to encode them with, clips.

    Errors are `ServiceError`s, which the server's interceptor turns into statuses. A cancelled render's status carries
    one detail more, a `Finished` that lists the outputs which were stored before it stopped.
    """

    def __init__(
        self,
        engine: EngineProcess[EngineInfo],
        store: ObjectStore,
        *,
        kind: str,
        buckets: Collection[str],
        reference_buckets: Collection[str] = (),
        registry: CollectorRegistry,
        policy: RenderPolicy | None = None,
        clip_encoder: ClipEncoderFactory | None = None,
    ) -> None:
        """Serve an engine that somebody else starts and stops.

        `kind` is `sdxl` or `wan`; `buckets` are those that outputs may go to, and reference pictures may be read from
        these and from `reference_buckets`; metrics go to `registry`. Without `clip_encoder`, clips are refused.
        """
        metrics = RenderMetrics(registry)
        self.renders = Renders(engine, store, policy or RenderPolicy(), metrics, clip_encoder)
        self._engine = engine
        self._kind = kind
        self._buckets = frozenset(buckets)
        self._reference_buckets = frozenset(reference_buckets) | self._buckets
        self._takes_clips = clip_encoder is not None
        self._instance_id = uuid.uuid4().hex
        metrics.busy(0)
        metrics.model(engine.state)
        engine.on_change(lambda: metrics.model(engine.state))

    async def Render(  # noqa: N802  # the contract's name
        self, request: render_pb2.RenderRequest, context: Context
    ) -> AsyncIterator[render_pb2.RenderResponse]:
        """Start, attach to or replay a render, and stream its events."""
        check_request(
            request,
            buckets=self._buckets,
            reference_buckets=self._reference_buckets,
            takes_clips=self._takes_clips,
        )
        try:
            render = await self.renders.open(request)
            if isinstance(render, render_pb2.Manifest):
                if render.finished_index > request.resume_from:
                    yield render_pb2.RenderResponse(index=render.finished_index, finished=render.finished)
                return
            render.attach(request)
            # The server's interceptor closes this generator as soon as the call is lost.
            try:
                async for event in render.events.follow(request.resume_from, previews=request.previews):
                    yield event
            finally:
                render.detach()
        except RenderStopped as error:
            await _abort_stopped(context, error)

    async def CancelRender(  # noqa: N802  # the contract's name
        self,
        request: render_pb2.CancelRenderRequest,
        context: Context,  # noqa: ARG002  # gRPC passes it
    ) -> render_pb2.CancelRenderResponse:
        """Stop a render."""
        check_render_id(request.render_id)
        return render_pb2.CancelRenderResponse(state=self.renders.cancel(request.render_id))

    async def GetRenderer(  # noqa: N802  # the contract's name
        self,
        request: render_pb2.GetRendererRequest,  # noqa: ARG002  # gRPC passes it
        context: Context,  # noqa: ARG002  # gRPC passes it
    ) -> render_pb2.GetRendererResponse:
        """Describe this renderer."""
        engine = self._engine
        described = render_pb2.GetRendererResponse(
            kind=self._kind,
            model_state=_MODEL_STATES[engine.state],
            model_error=engine.error,
            slot_count=SLOT_COUNT,
            busy_slot_count=self.renders.busy_slot_count,
            draining=self.renders.draining,
            engine_generation=engine.generation,
            instance_id=self._instance_id,
        )
        if engine.info is not None:
            described.model = engine.info.model
            described.limits.CopyFrom(
                render_pb2.Limits(
                    sizes=[render_pb2.Size(width_px=width, height_px=height) for width, height in engine.info.sizes],
                    max_image_count=engine.info.max_image_count,
                    max_frame_count=engine.info.max_frame_count,
                    max_step_count=engine.info.max_step_count,
                )
            )
        return described


async def _abort_stopped(context: Context, error: RenderStopped) -> None:
    """End the call with the error's status and, beside it, what was stored."""
    status = to_status(error)
    finished = AnyMessage()
    finished.Pack(error.finished)
    status.details.append(finished)
    await context.abort_with_status(rpc_status.to_status(status))
