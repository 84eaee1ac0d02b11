"""A renderer: a server with one engine behind it."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ourvidz.api.render.v1 import render_pb2_grpc
from ourvidz_serving.engines.process import EngineProcess, EngineState
from ourvidz_serving.rendering.clips import ClipEncoderFactory
from ourvidz_serving.rendering.engine import EngineInfo
from ourvidz_serving.rendering.policy import RenderPolicy
from ourvidz_serving.rendering.servicer import RenderServicer
from ourvidz_serving.server import Server
from ourvidz_serving.settings import Names, ServerSettings, load
from ourvidz_serving.storage import StorageSettings, open_store

SERVICE = "ourvidz.api.render.v1.RenderService"

_WAIT_SHARE = 0.8
"""How much of the drain's grace renders may take to end by themselves; in the rest they are stopped and say so."""


class RenderSettings(BaseSettings):
    """What any renderer can be told through its environment, whatever its engine."""

    model_config = SettingsConfigDict(env_prefix="OURVIDZ_RENDER_", env_ignore_empty=True, frozen=True, extra="ignore")

    upload_patience_s: float = Field(
        600.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that an upload is tried again while object storage is out of reach.",
        examples=[600],
    )
    reference_buckets: Names = Field(
        (
            "reference-images",
            "sdxl-image-fast",
            "sdxl-image-high",
            "image-fast",
            "image-high",
            "image7b-fast-enhanced",
            "image7b-high-enhanced",
        ),
        description="Buckets that reference pictures may be read from, besides the renderer's own, between commas.",
        examples=["reference-images,sdxl-image-fast,sdxl-image-high"],
    )


async def serve_renderer(
    settings: ServerSettings,
    engine: EngineProcess[EngineInfo],
    *,
    kind: str,
    buckets: Collection[str],
    clip_encoder: ClipEncoderFactory | None = None,
) -> None:
    """Serve an engine until the process is told to stop; starts and stops the engine, too.

    `kind` is `sdxl` or `wan`; `buckets` are those that outputs may go to. Without `clip_encoder`, clips are refused.
    Where storage is, is read from the environment. Health says SERVING while the model is loaded. Raises
    `SettingsError` and `StartError`.
    """
    render_settings, storage_settings = load(RenderSettings), load(StorageSettings)
    server = Server(settings, name=kind, require_service_token=True)
    store = open_store(storage_settings)
    servicer = RenderServicer(
        engine,
        store,
        kind=kind,
        buckets=buckets,
        reference_buckets=render_settings.reference_buckets,
        registry=server.registry,
        policy=RenderPolicy(upload_patience_s=render_settings.upload_patience_s),
        clip_encoder=clip_encoder,
    )
    render_pb2_grpc.add_RenderServiceServicer_to_server(servicer, server.grpc)
    server.add_service(SERVICE)
    engine.on_change(lambda: server.set_serving(SERVICE, engine.state is EngineState.READY))
    server.on_drain(lambda: servicer.renders.drain(_WAIT_SHARE * settings.drain_grace_s))
    try:
        await engine.start()
        await server.run()
    finally:
        # In this order: with its engine gone, a render that the drain had no time for ends at once.
        await engine.stop()
        await servicer.renders.close()
        await store.close()
