"""Progress from a renderer to watchers: messages a second to 32 of them, beside bare gRPC, and how late they are at idle.

Run as a program, it is the watchers, or the bare server.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import quantiles
from typing import Any

import grpc
import uvloop
from rich.console import Console

from integration.waiting import free_ports
from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz_bench.results import Row
from support.cluster.cluster import Cluster, running_cluster
from support.fronts import token
from support.postgres import running_postgres

TITLE = "Progress to watchers"
TEXT = (
    "One job of 900 steps, with one gateway, one renderer whose engine only paints, as fast as it can, and PostgreSQL; 32 watchers "
    "in one process, each on a connection of its own. Bare is a grpc.aio server on uvloop that streams 900 such messages, which it "
    "has made before, to each of the same watchers. Counted from the first step that any watcher hears of to the last. "
    "For the second rate the watchers come when the job has ended, and get it all from the log: what the gateway alone takes. Late is "
    "the time from the engine's note of a step to the watcher, by the one clock of the machine, while the engine does a step every "
    "10 ms for one watcher and nothing else runs."
)
PACKAGES = ("grpcio", "uvloop", "sse-starlette")

WATCHERS = 32
IMAGES, STEPS = 6, 150
"""Of the job: a series of the cluster's catalog."""
BESIDE = "bare grpc.aio on uvloop"
WHAT_BOUNDS = (
    "processor time: the gateway stores each step before it shows it, and shares two cores with the engine, the renderer, "
    "PostgreSQL and the watchers, of which the bare server has only the last; what the gateway's sending alone takes is the next row."
)
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True, slots=True)
class _Heard:
    """When watchers heard of steps, on the machine's monotonic clock."""

    times_ns: list[list[int]]
    """For each watcher, one for each step in order."""

    @property
    def rate(self) -> float:
        """Messages a second to all watchers."""
        times = [each for watcher in self.times_ns for each in watcher]
        return len(times) / (max(times) - min(times)) * 1e9


async def measure(rounds: int, console: Console) -> list[Row]:
    """Watch the gateway and the bare server in turn."""
    return await asyncio.to_thread(_measure, rounds, console)


def _measure(rounds: int, console: Console) -> list[Row]:
    names = ("bare", "live", "replayed", "SSE live", "late", "SSE late")
    found: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as name, running_postgres() as postgres, ExitStack() as stack:
        dsn = stack.enter_context(postgres.database())
        cluster = stack.enter_context(running_cluster(Path(name), dsn, gateways=1, sdxl=1, wan=0, enhancers=0))
        bare = stack.enter_context(_bare())
        for number in range(1, rounds + 1):
            console.print(f"round {number} of {rounds}")
            found["bare"].append(_hear("grpc", bare, "any", WATCHERS).rate)
            job_id, heard = _hear_job(cluster, "grpc", "unseen")
            found["live"].append(heard.rate)
            found["replayed"].append(_hear("grpc", _address(cluster, "grpc"), job_id, WATCHERS).rate)
            found["SSE live"].append(_hear_job(cluster, "sse", "unseen")[1].rate)
            found["late"].append(_late(cluster, "grpc"))
            found["SSE late"].append(_late(cluster, "sse"))
    live = Row(f"gRPC, {WATCHERS} watchers", "messages/s", found["live"], BESIDE, found["bare"], "≥ 0.6")
    return [
        replace(live, note="" if live.met else WHAT_BOUNDS),
        Row(f"gRPC, {WATCHERS} watchers who come late", "messages/s", found["replayed"], BESIDE, found["bare"]),
        Row(f"SSE, {WATCHERS} watchers", "messages/s", found["SSE live"]),
        Row("gRPC, one watcher at idle, late, p99", "ms", found["late"], goal="≤ 10"),
        Row("SSE, one watcher at idle, late, p99", "ms", found["SSE late"], goal="≤ 10"),
    ]


def _ask(cluster: Cluster, prompt: str) -> str:
    gateway = cluster.gateways[0]
    return asyncio.run(gateway.ask(f"a fox {prompt}", job_type="series", num_images=IMAGES))


def _hear_job(cluster: Cluster, how: str, prompt: str, watchers: int = WATCHERS) -> tuple[str, _Heard]:
    """Let watchers follow a job from before its first step; return the job's id and what they heard."""
    # It takes the renderer until all watchers are there.
    _ask(cluster, "pace:3 unseen")
    job_id = _ask(cluster, prompt)
    return job_id, _hear(how, _address(cluster, how), job_id, watchers)


def _late(cluster: Cluster, how: str) -> float:
    """Return how late a watcher hears of steps, the 99th percentile in milliseconds."""
    job_id, heard = _hear_job(cluster, how, "pace:10 unseen", 1)
    lines = (json.loads(line) for line in cluster.steps_file.read_text().splitlines())
    done = [line["monotonic_ns"] for line in lines if line["render"].startswith(job_id)]
    late_ms = [(after - before) / 1e6 for before, after in zip(done, heard.times_ns[0], strict=True)]
    return float(quantiles(late_ms, n=100)[98])


def _address(cluster: Cluster, how: str) -> str:
    gateway = cluster.gateways[0]
    return gateway.node.address if how == "grpc" else gateway.url.removeprefix("http://")


def _hear(how: str, address: str, job_id: str, watchers: int) -> _Heard:
    """Run watchers in a process of their own until each has heard of all steps."""
    command = [sys.executable, "-m", __name__, how, address, job_id, str(watchers)]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return _Heard(json.loads(said))


@contextmanager
def _bare() -> Iterator[str]:
    [port] = free_ports(1)
    process = subprocess.Popen([sys.executable, "-m", __name__, "bare", str(port)])
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


async def _watch_rpc(address: str, job_id: str) -> list[int]:
    async with grpc.aio.insecure_channel(address, options=_OWN_CONNECTION) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        metadata = [("authorization", f"Bearer {token()}")]
        updates = stub.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id), metadata=metadata)
        return [time.monotonic_ns() async for update in updates if update.HasField("step")]


async def _watch_sse(address: str, job_id: str) -> list[int]:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    headers = f"Host: {host}\r\nAuthorization: Bearer {token()}\r\nConnection: close"
    writer.write(f"GET /api/jobs/{job_id}/events HTTP/1.1\r\n{headers}\r\n\r\n".encode())
    times = [time.monotonic_ns() async for line in reader if line == b"event: step\n"]
    writer.close()
    return times


async def _watch(how: str, address: str, job_id: str, watchers: int) -> None:
    watch = _watch_rpc if how == "grpc" else _watch_sse
    print(json.dumps(await asyncio.gather(*(watch(address, job_id) for _ in range(watchers)))))


class _BareServicer(jobs_pb2_grpc.JobServiceServicer):
    """Streams messages that are there already."""

    def __init__(self) -> None:
        self._messages = []
        for number in range(IMAGES * STEPS):
            image, step = divmod(number, STEPS)
            message = jobs_pb2.WatchJobResponse(
                sequence=number + 3,
                state=jobs_pb2.JOB_STATE_PROCESSING,
                stage=jobs_pb2.JOB_STAGE_RENDERING,
                progress_percent=95 * number // (IMAGES * STEPS),
                attempt=1,
                step=jobs_pb2.StepDetail(step=step + 1, step_count=STEPS, image_index=image, image_count=IMAGES),
            )
            message.event_time.GetCurrentTime()
            self._messages.append(message)

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[jobs_pb2.WatchJobResponse]:  # noqa: ARG002, N802
        """Stream them all."""
        for message in self._messages:
            yield message


async def _serve_bare(port: int) -> None:
    server = grpc.aio.server()
    jobs_pb2_grpc.add_JobServiceServicer_to_server(_BareServicer(), server)  # type: ignore[abstract]  # one method is all it needs
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "bare":
        uvloop.run(_serve_bare(int(rest[0])))
    else:
        uvloop.run(_watch(role, rest[0], rest[1], int(rest[2])))
