"""A renderer that answers nonsense: it costs attempts, and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import grpc

from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz_gateway.renderers import RENDER_SERVICE
from ourvidz_serving.server import Server
from ourvidz_serving.settings import ServerSettings
from support.cluster.audit import audit, until_ended
from support.cluster.cluster import SERVICE_TOKEN, Cluster


def output(request: render_pb2.RenderRequest, **changes: object) -> render_pb2.Output:
    """An output that could be, but for what `changes` say."""
    stated = {
        "bucket": request.output.bucket,
        "key": f"{request.output.prefix}/0.png",
        "mime_type": "image/png",
        "size_bytes": 1000,
        "sha256": bytes(32),
        "width_px": request.images.width_px,
        "height_px": request.images.height_px,
        "seed": 1,
        "frame_count": 1,
    }
    return render_pb2.Output(**{**stated, **changes})


def finished(*outputs: render_pb2.Output) -> list[render_pb2.RenderResponse]:
    return [render_pb2.RenderResponse(index=2, finished=render_pb2.Finished(outputs=outputs))]


def step(index: int = 2, **stated: int) -> list[render_pb2.RenderResponse]:
    return [render_pb2.RenderResponse(index=index, step=render_pb2.Step(image_count=1, step_count=20, **stated))]


Answer = Callable[[render_pb2.RenderRequest], list[render_pb2.RenderResponse]]

NONSENSE: dict[str, Answer] = {
    "somebody-elses-place": lambda asked: finished(output(asked, key="bob/0.png")),
    "no-outputs": lambda _: finished(),
    "endless-bytes": lambda asked: finished(output(asked, size_bytes=2**64 - 1)),
    "step-too-far": lambda _: step(step=2**32 - 1),
    "event-from-the-end-of-days": lambda _: step(2**64 - 1, step=1),
    "nothing": lambda _: [render_pb2.RenderResponse(index=2)],
    "silence": lambda _: [],
}
"""What a renderer may say after it has taken a render; `tests/gateway/test_answers.py` has more of it."""
UNKNOWN_STATUS = "unknown-status"


class Faulty(render_pb2_grpc.RenderServiceServicer):
    """Answers a render with what its prompt names."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def Render(self, request, context):
        name = request.images.sampling.prompt.split()[0]
        self.asked[name] += 1
        yield render_pb2.RenderResponse(index=1, accepted=render_pb2.Accepted(seed=1, model="faulty"))
        if name == UNKNOWN_STATUS:
            await context.abort(grpc.StatusCode.DATA_LOSS, "a\nbc" * 100)
        for answer in NONSENSE.get(name, NONSENSE["silence"])(request):
            yield answer

    async def CancelRender(self, request, context):
        return render_pb2.CancelRenderResponse(state=render_pb2.CancelRenderResponse.STATE_ENDED)

    async def GetRenderer(self, request, context):
        return render_pb2.GetRendererResponse(kind="sdxl", slot_count=1)


@asynccontextmanager
async def faulty_renderer(address: str) -> AsyncIterator[Faulty]:
    """Serve nonsense at an address."""
    settings = ServerSettings(grpc_port=int(address.rpartition(":")[2]), service_token=SERVICE_TOKEN)
    server, faulty = Server(settings, name="faulty", require_service_token=True), Faulty()
    render_pb2_grpc.add_RenderServiceServicer_to_server(faulty, server.grpc)
    server.add_service(RENDER_SERVICE)
    await server.start()
    server.set_serving(RENDER_SERVICE, serving=True)
    try:
        yield faulty
    finally:
        await server.drain()


async def until_slots(cluster: Cluster, address: str) -> None:
    """Wait until a gateway has found a renderer."""
    async with asyncio.timeout(30):
        while not await cluster.rows("SELECT 1 FROM attempts WHERE address = $1 AND outcome IS NOT NULL", address):
            await cluster.ask(cluster.gateways[0], "silence", user="scout")
            await asyncio.sleep(0.2)


async def test_a_renderer_that_answers_nonsense_costs_attempts_and_no_job(cluster: Cluster):
    bad, good = cluster.sdxl
    bad.kill()
    async with faulty_renderer(bad.address) as faulty:
        await until_slots(cluster, bad.address)
        names = [*NONSENSE, UNKNOWN_STATUS] * 4
        jobs = [await cluster.ask(cluster.gateways[turn % 2], f"{name} fox") for turn, name in enumerate(names)]
        await until_ended(cluster, cluster.accepted)

    await audit(cluster)
    rows = await cluster.rows(
        "SELECT address, outcome, reason FROM attempts WHERE job_id = ANY($1::uuid[])", [UUID(each) for each in jobs]
    )
    assert {row["address"] for row in rows if row["outcome"] == "completed"} == {good.address}
    assert {row["reason"] for row in rows if row["address"] == bad.address} <= {"NONSENSE", "STREAM_ENDED", "DATA_LOSS"}
    # One that fails at once is free at once, and must not draw in all that waits.
    assert 2 <= faulty.asked.total() < len(names)


async def test_a_job_that_gets_nothing_but_nonsense_fails_and_says_so(cluster: Cluster):
    for node in cluster.sdxl:
        node.kill()
    async with faulty_renderer(cluster.sdxl[0].address) as faulty:
        job_id = await cluster.ask(cluster.gateways[0], "no-outputs fox")
        await until_ended(cluster, [job_id])

    async with cluster.gateways[1].http() as http:
        job = (await http.get(f"/api/jobs/{job_id}")).json()
    assert job["status"] == "failed"
    assert job["assets"] == []
    assert "NONSENSE" in job["error_message"]
    assert faulty.asked == {"no-outputs": 3}
    await cluster.restore()
    await audit(cluster, not_completed=[job_id])
