"""How the gateway finds renderers and notices what becomes of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import structlog

from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz_gateway import renderers as module
from ourvidz_gateway.database import Database
from ourvidz_gateway.jobs import Kind
from ourvidz_gateway.renderers import Renderers
from ourvidz_serving.rendering.renderer import SERVICE
from ourvidz_serving.server import Server
from ourvidz_serving.settings import ServerSettings
from support.jobs import Bench
from support.scripted_enhancer import enhancing


class Described(render_pb2_grpc.RenderServiceServicer):
    """A renderer that only describes itself."""

    def __init__(self, kind: str, slots: int) -> None:
        self.kind = kind
        self.slots = slots

    async def GetRenderer(self, request, context):
        return render_pb2.GetRendererResponse(kind=self.kind, slot_count=self.slots)


@asynccontextmanager
async def described(kind: str = "sdxl", *, slots: int = 1, port: int = 0) -> AsyncIterator[Server]:
    server = Server(ServerSettings(grpc_port=port, drain_grace_s=0), name=kind, require_service_token=False)
    render_pb2_grpc.add_RenderServiceServicer_to_server(Described(kind, slots), server.grpc)
    server.add_service(SERVICE)
    await server.start()
    server.set_serving(SERVICE, True)
    try:
        yield server
    finally:
        if not server.stopping.is_set():
            await server.drain()


@asynccontextmanager
async def watching(
    database: Database, targets: Sequence[str], kind: Kind = Kind.SDXL
) -> AsyncIterator[tuple[Renderers, asyncio.Queue[Kind]]]:
    ready: asyncio.Queue[Kind] = asyncio.Queue()
    renderers = Renderers({kind: targets, Kind.WAN: ()}, database, service_token=None, on_ready=ready.put_nowait)
    task = asyncio.create_task(renderers.run())
    try:
        yield renderers, ready
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert renderers._renderers == {}


async def gone(renderers: Renderers, kind: Kind = Kind.SDXL) -> None:
    async with asyncio.timeout(20):
        while renderers.ready(kind):
            await asyncio.sleep(0.01)


async def test_several_renderers_bring_the_slots_that_each_has(database: Database, bench: Bench):
    async with described() as one, described(slots=2) as two:
        targets = [f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}"]
        async with watching(database, targets) as (renderers, ready):
            assert [await ready.get(), await ready.get()] == [Kind.SDXL, Kind.SDXL]
            assert sorted(renderers.ready(Kind.SDXL)) == sorted(targets)

    assert await bench.value("SELECT count(*) FROM renderer_slots") == 3


async def test_a_renderer_whose_health_says_no_gets_no_work_until_it_says_yes(database: Database):
    async with described() as server, watching(database, [f"127.0.0.1:{server.port}"]) as (renderers, ready):
        await ready.get()
        server.set_serving(SERVICE, False)
        await gone(renderers)
        server.set_serving(SERVICE, True)
        await ready.get()


async def test_a_renderer_that_is_started_later_or_again_is_found(database: Database):
    async with described() as first:
        port = first.port
    async with watching(database, [f"127.0.0.1:{port}"]) as (renderers, ready):
        assert renderers.configured(Kind.SDXL)
        assert renderers.ready(Kind.SDXL) == []
        async with described(port=port):
            await ready.get()
        await gone(renderers)
        async with described(port=port):
            await ready.get()


async def test_a_renderer_with_fewer_slots_than_before_loses_its_free_ones(database: Database, bench: Bench):
    async with described(slots=3) as server, watching(database, [f"127.0.0.1:{server.port}"]) as (_, ready):
        await ready.get()
    async with described(slots=1, port=server.port), watching(database, [f"127.0.0.1:{server.port}"]) as (_, ready):
        await ready.get()

    assert await bench.value("SELECT array_agg(slot) FROM renderer_slots") == [0]


async def test_a_renderer_of_another_kind_gets_no_work(database: Database, bench: Bench):
    with structlog.testing.capture_logs() as lines:
        async with described("wan") as server, watching(database, [f"127.0.0.1:{server.port}"]) as (renderers, _):
            async with asyncio.timeout(20):
                while not any(line["event"] == "renderer is of another kind" for line in lines):
                    await asyncio.sleep(0.01)
            assert renderers.ready(Kind.SDXL) == []

    assert await bench.value("SELECT count(*) FROM renderer_slots") == 0


async def test_an_enhancer_brings_its_slots_and_leaves_like_a_renderer(database: Database, bench: Bench):
    async with AsyncExitStack() as stack:
        async with enhancing(slots=3) as enhancer:
            renderers, ready = await stack.enter_async_context(watching(database, [enhancer.address], Kind.ENHANCER))
            assert await ready.get() == Kind.ENHANCER
            assert renderers.ready(Kind.ENHANCER) == [enhancer.address]
        await gone(renderers, Kind.ENHANCER)

    assert await bench.value("SELECT count(*) FROM renderer_slots WHERE kind = 'enhancer'") == 3


async def test_renderers_behind_a_name_come_and_go_with_dns(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "DNS_INTERVAL_S", 0.01)
    async with described() as server:
        named = {"127.0.0.1"}
        loop = asyncio.get_running_loop()

        async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
            # DNS is a wire that is not ours.
            assert host == "renderers.example"
            if not named:
                raise OSError("DNS does not answer")
            return [(2, 1, 6, "", (ip, port)) for ip in named if ip != "nowhere"]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        async with watching(database, [f"dns:///renderers.example:{server.port}"]) as (renderers, ready):
            await ready.get()
            assert renderers.ready(Kind.SDXL) == [f"127.0.0.1:{server.port}"]

            named.clear()
            await asyncio.sleep(0.05)
            assert renderers.ready(Kind.SDXL), "a failed look-up makes nobody vanish"

            async with renderers.channel(Kind.SDXL, f"127.0.0.1:{server.port}") as channel:
                named.add("nowhere")
                await gone(renderers)
                stub = render_pb2_grpc.RenderServiceStub(channel)
                assert (await stub.GetRenderer(render_pb2.GetRendererRequest())).kind == "sdxl"
            assert renderers._renderers == {}


async def test_a_server_rests_the_longer_the_more_attempts_fail_there_in_a_row(database: Database):
    renderers = Renderers({}, database, service_token=None, on_ready=lambda _: None)
    rests = [renderers.note_failure(Kind.SDXL, "one:1") for _ in range(12)]
    assert rests == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    assert renderers.note_failure(Kind.SDXL, "another:1") == 0
    renderers.note_success(Kind.SDXL, "one:1")
    renderers.note_success(Kind.SDXL, "never-seen:1")
    assert [renderers.note_failure(Kind.SDXL, "one:1") for _ in range(2)] == [0, 1]
