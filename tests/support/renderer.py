"""A whole renderer for tests: the real server, servicer, child process and store, with an engine that only paints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz.rpc_status import ParsedError, parse
from ourvidz_serving.engines.process import EngineProcess, EngineState
from ourvidz_serving.rendering.clips import ClipEncoderFactory
from ourvidz_serving.rendering.policy import RenderPolicy
from ourvidz_serving.rendering.renderer import SERVICE
from ourvidz_serving.rendering.renders import Renders
from ourvidz_serving.rendering.servicer import RenderServicer
from ourvidz_serving.server import Server
from ourvidz_serving.settings import ServerSettings
from ourvidz_serving.storage import LocalStore, ObjectInfo, StoreUnavailable, UrlSigner

FACTORY = "support.fake_engine:create_engine"
BUCKET = "pictures"
REFERENCES = "reference-images"


class Gate:
    """Where the engine waits when its prompt says `hold`."""

    def __init__(self) -> None:
        self._arrivals: asyncio.Queue[tuple[int, asyncio.StreamWriter]] = asyncio.Queue()
        self._held: list[asyncio.StreamWriter] = []

    @classmethod
    @asynccontextmanager
    async def at(cls, path: Path) -> AsyncIterator[Gate]:
        gate = cls()
        server = await asyncio.start_unix_server(gate._arrive, path)
        try:
            yield gate
        finally:
            server.close()
            gate.release()

    async def held(self) -> int:
        """Wait until the engine waits here, and return its process id."""
        pid, writer = await self._arrivals.get()
        self._held.append(writer)
        return pid

    def release(self) -> None:
        """Let go of whoever is held."""
        while self._held:
            self._held.pop().close()

    async def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._arrivals.put_nowait((int(await reader.readline()), writer))


class SwitchedStore(LocalStore):
    """A local folder that can be out of reach."""

    def __init__(self, root: Path, signer: UrlSigner | None = None) -> None:
        super().__init__(root, signer)
        self.down = False
        self.failed = asyncio.Event()
        """Set with each call that failed."""
        self.loses_answers_for = ""
        """Writes of keys that end so are done, and their answer is lost once."""

    async def get(self, bucket: str, key: str) -> bytes:
        self._reach()
        return await super().get(bucket, key)

    async def stat(self, bucket: str, key: str) -> ObjectInfo:
        self._reach()
        return await super().stat(bucket, key)

    async def put(
        self, bucket: str, key: str, data: bytes, *, content_type: str, if_absent: bool = False
    ) -> ObjectInfo:
        self._reach()
        info = await super().put(bucket, key, data, content_type=content_type, if_absent=if_absent)
        if self.loses_answers_for and key.endswith(self.loses_answers_for):
            self.loses_answers_for = ""
            raise StoreUnavailable("the answer was lost")
        return info

    async def delete(self, bucket: str, key: str) -> None:
        self._reach()
        await super().delete(bucket, key)

    async def list(self, bucket: str, prefix: str = "") -> list[str]:
        self._reach()
        return await super().list(bucket, prefix)

    def _reach(self) -> None:
        if self.down:
            self.failed.set()
            raise StoreUnavailable("the store is down")


@dataclass
class Renderer:
    """A started renderer and a client of it."""

    server: Server
    engine: EngineProcess
    store: SwitchedStore
    renders: Renders
    stub: render_pb2_grpc.RenderServiceStub
    gate: Gate

    async def ready(self) -> None:
        """Wait until the model is loaded."""
        await self.reach(EngineState.READY)

    async def reach(self, state: EngineState) -> None:
        """Wait until the model is in a state."""
        changed = asyncio.Event()
        self.engine.on_change(changed.set)
        while self.engine.state is not state:
            changed.clear()
            await changed.wait()

    async def events(self, request: render_pb2.RenderRequest) -> list[render_pb2.RenderResponse]:
        """Render, and return all events."""
        return [event async for event in self.stub.Render(request)]

    async def finish(self, request: render_pb2.RenderRequest) -> render_pb2.Finished:
        """Render, and return the last event."""
        return (await self.events(request))[-1].finished

    async def failure(self, request: render_pb2.RenderRequest) -> ParsedError:
        """Render, and return how that failed."""
        return await failure_of(self.stub.Render(request))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something in the server that tells nobody when it happens."""
        async with asyncio.timeout(30):
            while not condition():  # there is no event to wait for
                await asyncio.sleep(0.002)

    def metric(self, name: str, **labels: str) -> float | None:
        """Return a metric's value."""
        return self.server.registry.get_sample_value(name, labels)


async def first_of(call: grpc.aio.UnaryStreamCall[Any, Any]) -> render_pb2.RenderResponse:
    """Read one event of a call; more can be read afterwards."""
    event: render_pb2.RenderResponse = await anext(aiter(call))
    return event


async def failure_of(call: grpc.aio.UnaryStreamCall[Any, Any]) -> ParsedError:
    """Read a call to its end and return how it failed."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return parse(error)
    raise AssertionError("the call did not fail")


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    kind: str = "sdxl",
    config: dict[str, Any] | None = None,
    policy: RenderPolicy | None = None,
    clip_encoder: ClipEncoderFactory | None = None,
    buckets: Sequence[str] = (BUCKET,),
) -> AsyncIterator[Renderer]:
    """Run a renderer whose objects and gate are in `folder`; a second one there finds what the first one stored."""
    async with Gate.at(folder / "gate") as gate:
        engine = EngineProcess(
            FACTORY, {"gate": str(folder / "gate"), **(config or {})}, first_backoff_s=0.01, max_backoff_s=0.05
        )
        server = Server(ServerSettings(drain_grace_s=0), name="painter", require_service_token=False)
        store = SwitchedStore(folder / "objects")
        servicer = RenderServicer(
            engine,
            store,
            kind=kind,
            buckets=buckets,
            reference_buckets=[REFERENCES],
            registry=server.registry,
            policy=policy or RenderPolicy(first_retry_s=0.01),
            clip_encoder=clip_encoder,
        )
        render_pb2_grpc.add_RenderServiceServicer_to_server(servicer, server.grpc)
        server.add_service(SERVICE)
        engine.on_change(lambda: server.set_serving(SERVICE, engine.state is EngineState.READY))
        await engine.start()
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        stub = render_pb2_grpc.RenderServiceStub(channel)
        try:
            yield Renderer(server, engine, store, servicer.renders, stub, gate)
        finally:
            await channel.close()
            await server.drain()
            await engine.stop()
            await servicer.renders.close()
            await store.close()


def ask(
    prompt: str = "a fox",
    *,
    render_id: str = "job/1",
    prefix: str | None = None,
    images: int = 1,
    steps: int = 2,
    seed: int | None = 7,
    reference: render_pb2.ImageSource | None = None,
    **more: Any,
) -> render_pb2.RenderRequest:
    """A request for small pictures; the prompt says what the engine does."""
    return render_pb2.RenderRequest(
        render_id=render_id,
        output=render_pb2.OutputLocation(bucket=BUCKET, prefix=prefix or f"user/{render_id}"),
        images=render_pb2.ImageBatch(
            sampling=render_pb2.Sampling(prompt=prompt, step_count=steps, guidance_scale=7.5, seed=seed),
            width_px=64,
            height_px=48,
            image_count=images,
            reference=None if reference is None else render_pb2.ImageReference(source=reference, influence=0.5),
        ),
        **more,
    )


def ask_clip(
    prompt: str = "a fox",
    *,
    render_id: str = "job/1",
    frames: int = 8,
    size: tuple[int, int] = (64, 96),
    seed: int | None = 7,
    start_frame: render_pb2.ImageSource | None = None,
    end_frame: render_pb2.ImageSource | None = None,
    **more: Any,
) -> render_pb2.RenderRequest:
    """A request for a clip of 5 seconds; the prompt says what the engine does."""
    width_px, height_px = size
    return render_pb2.RenderRequest(
        render_id=render_id,
        output=render_pb2.OutputLocation(bucket=BUCKET, prefix=f"user/{render_id}"),
        clip=render_pb2.Clip(
            sampling=render_pb2.Sampling(prompt=prompt, step_count=2, guidance_scale=6.5, seed=seed),
            width_px=width_px,
            height_px=height_px,
            frame_count=frames,
            duration=Duration(seconds=5),
            start_frame=start_frame,
            end_frame=end_frame,
        ),
        **more,
    )
