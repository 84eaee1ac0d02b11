"""Several gateways, renderers and an enhancer on one database and one store, and clients of them."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from integration.receiver import SECRET as WEBHOOK_SECRET
from integration.receiver import Receiver, receiving
from integration.waiting import free_ports
from ourvidz import AsyncClient
from support.cluster.nodes import Node
from support.fronts import SECRET, token

SERVICE_TOKEN = "a-token-that-servers-show-each-other"
CATALOG = Path(__file__).with_name("catalog.toml")
LEASE_S = 5.0
TESTS = Path(__file__).parents[2]


@dataclass
class Gateway:
    """A gateway's process and its addresses."""

    node: Node
    url: str

    async def ask(
        self,
        prompt: str = "a fox",
        *,
        job_type: str = "picture",
        user: str = "alice",
        key: str | None = None,
        **metadata: Any,
    ) -> str:
        """Ask for a job over REST, and return its id. Raises `httpx.HTTPError`."""
        headers = {"idempotency-key": key} if key else {}
        body = {"jobType": job_type, "metadata": {"prompt": prompt, **metadata}}
        async with self.http(user) as http:
            reply = (await http.post("/api/queue-job", json=body, headers=headers)).raise_for_status().json()
        return str(reply["job"]["id"])

    async def probe(self, path: str) -> tuple[int, bool]:
        """Ask `/readyz` or `/healthz`; return the status, and whether it says when to ask again."""
        async with self.http() as http:
            reply = await http.get(path)
        return reply.status_code, "retry-after" in reply.headers

    def client(self, user: str = "alice") -> AsyncClient:
        """A gRPC client of that user."""
        return AsyncClient(self.node.address, token(user), url=self.url)

    def http(self, user: str = "alice") -> httpx.AsyncClient:
        """A REST client of that user."""
        headers = {"authorization": f"Bearer {token(user)}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=30)


@dataclass(frozen=True)
class Running:
    """An attempt that has not ended."""

    stage: str
    attempt: int
    address: str
    session_id: UUID
    owner: Gateway | None
    """The gateway that runs it; None if that one is of an earlier start."""


@dataclass
class Cluster:
    """All of it. Nodes may be killed and started again; at the end, each that runs must leave well."""

    folder: Path
    dsn: str
    """The database, without anything between."""
    receiver: Receiver
    """What the operator's webhooks come to."""
    storage: Mapping[str, str]
    """The variables that say where objects are, without their prefix."""
    drain_grace_s: float = 25
    """How long a server may take to leave."""
    gateways: list[Gateway] = field(default_factory=list)
    sdxl: list[Node] = field(default_factory=list)
    wan: list[Node] = field(default_factory=list)
    enhancers: list[Node] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    """The ids of all jobs that were asked for with `ask`, over all tests that share it."""

    async def ask(self, gateway: Gateway, prompt: str = "a fox", **more: Any) -> str:
        """Ask a gateway for a job, as `Gateway.ask` does, and return its id; audits then look for it."""
        job_id = await gateway.ask(prompt, **more)
        self.accepted.append(job_id)
        return job_id

    @property
    def nodes(self) -> list[Node]:
        """All servers."""
        return [*(gateway.node for gateway in self.gateways), *self.sdxl, *self.wan, *self.enhancers]

    @property
    def steps_file(self) -> Path:
        """Where all engines write down each step that they do."""
        return self.folder / "steps.jsonl"

    def steps(self, job_id: str) -> Counter[tuple[int, int]]:
        """How often each step of a job was really done, by (image, step), over all its attempts."""
        lines = [json.loads(line) for line in self.steps_file.read_text().splitlines()]
        return Counter((line["image"], line["step"]) for line in lines if line["render"].partition("/")[0] == job_id)

    async def rows(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Ask the database, past all servers."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetch(query, *args)
        finally:
            await connection.close()

    async def running(self, job_id: str) -> Running | None:
        """Where a job runs now; None while it does not."""
        rows = await self.rows(
            """SELECT a.stage, a.attempt, a.address, a.session_id, s.name FROM attempts a
               JOIN gateway_sessions s ON s.id = a.session_id WHERE a.job_id = $1 AND a.ended_at IS NULL""",
            UUID(job_id),
        )
        if not rows:
            return None
        row = rows[0]
        owner = next((each for each in self.gateways if row["name"].endswith(f":{each.node.process.pid}")), None)
        return Running(row["stage"], row["attempt"], row["address"], row["session_id"], owner)

    async def until_running(self, job_id: str, stage: str = "rendering", *, steps: int = 0) -> Running:
        """Wait until a job is at a stage, and so many of its steps are done; return where it runs."""
        found: Running | None = None
        async with asyncio.timeout(30):
            while (
                found is None
                or found.stage != stage
                or (await self.running(job_id)) != found
                or self.steps(job_id).total() < steps
            ):
                await asyncio.sleep(0.02)
                found = await self.running(job_id)
        return found

    async def clock(self) -> datetime:
        """The time on the database's clock, which all leases go by."""
        (row,) = await self.rows("SELECT clock_timestamp() AS now")
        now: datetime = row["now"]
        return now

    async def attempts(self, job_id: str) -> list[asyncpg.Record]:
        """All attempts at all stages of a job, in order."""
        return await self.rows("SELECT * FROM attempts WHERE job_id = $1 ORDER BY attempt", UUID(job_id))

    async def sessions(self) -> set[UUID]:
        """The gateways' sessions that have not ended."""
        return {row["id"] for row in await self.rows("SELECT id FROM gateway_sessions WHERE ended_at IS NULL")}

    def renderer(self, address: str) -> Node:
        """The renderer or enhancer at an address, as `attempts` names it."""
        return next(node for node in [*self.sdxl, *self.wan, *self.enhancers] if node.address == address)

    async def restore(self) -> None:
        """Start again whatever does not run, and wait until all is well: for tests that share a cluster."""
        missing = [node for node in self.nodes if not node.runs]
        for node in missing:
            node.launch()
        for node in missing:
            await asyncio.to_thread(node.wait_ready)


@contextmanager
def running_cluster(
    folder: Path,
    dsn: str,
    *,
    gateways: int = 2,
    sdxl: int = 2,
    wan: int = 1,
    enhancers: int = 1,
    storage: Mapping[str, str] | None = None,
    gateway_dsns: Sequence[str] = (),
    drain_grace_s: float = 25,
    **gateway_settings: str,
) -> Iterator[Cluster]:
    """Start everything and wait until it is ready; blocks. At the end all that runs is told to leave, and must do so well.

    `storage` are the variables of an S3 server, without `OURVIDZ_STORAGE_`; a folder that all share if None.
    `gateway_dsns` are how each gateway reaches the database, if there is something between. `drain_grace_s` is how long any
    server may take to leave, and `gateway_settings` are variables of every gateway, without `OURVIDZ_`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    where = dict(storage or {"KIND": "local", "PATH": str(folder / "objects")})
    with receiving() as receiver:
        cluster = Cluster(folder, dsn, receiver, where, drain_grace_s)
        _plan(cluster, gateways, sdxl, wan, enhancers, gateway_dsns or [dsn] * gateways, gateway_settings)
        cluster.steps_file.touch()
        try:
            for node in cluster.nodes:
                node.launch()
            with ThreadPoolExecutor() as waiting:
                list(waiting.map(Node.wait_ready, cluster.nodes))
            yield cluster
            running = [node for node in cluster.nodes if node.runs]
            for node in running:
                node.terminate()
            for node in running:
                node.wait_ended()
        finally:
            for node in cluster.nodes:
                node.close()


def _plan(
    cluster: Cluster,
    gateways: int,
    sdxl: int,
    wan: int,
    enhancers: int,
    gateway_dsns: Sequence[str],
    settings: Mapping[str, str],
) -> None:
    """Name all nodes and give them their addresses and environments."""
    ports = iter(free_ports(2 * gateways + sdxl + wan + enhancers))
    for kind, count, nodes in (("sdxl", sdxl, cluster.sdxl), ("wan", wan, cluster.wan)):
        for index in range(count):
            own = {"KIND": kind, "STEPS_FILE": str(cluster.steps_file)}
            nodes.append(_model_server(cluster, f"{kind}-{index}", "painter", next(ports), own))
    for index in range(enhancers):
        cluster.enhancers.append(_model_server(cluster, f"enhancer-{index}", "scribe", next(ports), {}))
    for index in range(gateways):
        rest_port, grpc_port = next(ports), next(ports)
        url = f"http://127.0.0.1:{rest_port}"
        stated = {
            "DATABASE_URL": gateway_dsns[index],
            "GRPC_PORT": str(grpc_port),
            "REST_PORT": str(rest_port),
            "JWT_SECRET": SECRET,
            "CATALOG": str(CATALOG),
            "RENDERERS_SDXL": ",".join(node.address for node in cluster.sdxl),
            "RENDERERS_WAN": ",".join(node.address for node in cluster.wan),
            "RENDERERS_ENHANCER": ",".join(node.address for node in cluster.enhancers),
            "CREDITS_GRANT": "1000000",
            "LEASE_S": str(LEASE_S),
            "WEBHOOK_URL": cluster.receiver.url,
            "WEBHOOK_SECRET": WEBHOOK_SECRET,
            "STORAGE_PUBLIC_URL": url,
            "STORAGE_SIGNING_SECRET": "another secret of the tests, for signed URLs",
            **settings,
        }
        node = Node(
            f"gateway-{index}",
            "ourvidz_gateway",
            _environment(cluster, stated),
            cluster.folder / f"gateway-{index}.log",
            address=f"127.0.0.1:{grpc_port}",
            ready=partial(_gateway_ready, url),
        )
        cluster.gateways.append(Gateway(node, url))


def _model_server(cluster: Cluster, name: str, program: str, port: int, own: Mapping[str, str]) -> Node:
    stated = {
        f"{program.upper()}_{key}": value for key, value in {"GRPC_PORT": str(port), "METRICS_PORT": "0", **own}.items()
    }
    address = f"127.0.0.1:{port}"
    return Node(
        name,
        f"support.cluster.{program}",
        _environment(cluster, stated),
        cluster.folder / f"{name}.log",
        address=address,
        ready=partial(_serving, address),
    )


def _environment(cluster: Cluster, stated: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OURVIDZ_")}
    storage = {f"OURVIDZ_STORAGE_{name}": value for name, value in cluster.storage.items()}
    shared = {"METRICS_PORT": "0", "SERVICE_TOKEN": SERVICE_TOKEN, "LOG_FORMAT": "json"}
    shared["DRAIN_GRACE_S"] = str(cluster.drain_grace_s)
    ours = {f"OURVIDZ_{name}": value for name, value in {**shared, **stated}.items()}
    # As `ourvidz up` does: a server forks to start its engine, and gRPC has no part in that.
    return {**inherited, **storage, **ours, "PYTHONPATH": str(TESTS), "GRPC_ENABLE_FORK_SUPPORT": "0"}


def _gateway_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, timeout=5).is_success
    except httpx.TransportError:
        return False


def _serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return bool(check.status == health_pb2.HealthCheckResponse.SERVING)
