"""Requests a second at `POST /api/queue-job`, beside a bare FastAPI handler that does one INSERT.

Run as a program, it is that handler.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import asyncpg
import httpx
import uvicorn
from fastapi import Body, FastAPI, Request
from rich.console import Console

from integration.waiting import free_ports, until
from ourvidz_bench.results import Row
from support.cluster.cluster import running_cluster
from support.fronts import token
from support.postgres import running_postgres

TITLE = "Requests for jobs over REST"
TEXT = (
    "`POST /api/queue-job` at one gateway process, by wrk over 64 connections for some seconds, with one renderer configured "
    "that is never there; PostgreSQL, wrk and the server share the machine. Bare is one uvicorn process with uvloop and a FastAPI "
    "handler that checks nothing and INSERTs the body into one table through an asyncpg pool as large as ours, 16, with the same "
    "`synchronous_commit`. Every answer must be a success. Requests of many users come from 200 of them in turn; those of one "
    "user follow each other at that user's account, whose row each of them changes."
)
PACKAGES = ("fastapi", "uvicorn", "asyncpg")

CONNECTIONS = 64
SECONDS = 6
WARM_UP_SECONDS = 2
USERS = 200
REQUESTS = 1000
"""Different ones, sent in turn."""
POOL = 16
BESIDE = "bare FastAPI handler, one INSERT"
REQUEST = {
    "jobType": "picture",
    "metadata": {
        "prompt": "a lighthouse at dusk, waves, storm number TURN",
        "num_images": 1,
        "seed": 7,
        "scene": "harbour",
    },
    "projectId": "project-1",
}
WHAT_BOUNDS = (
    "one core, which the gateway's process keeps busy; PostgreSQL takes half of another. By a profile of that process, a quarter of "
    "its time goes into FastAPI and uvicorn themselves and 13 % into the statement, which the bare handler has too, in smaller; "
    "the rest is what that one does not do: the token and all else that a route depends on 11 %, checking the request and making the "
    "job that is stored 12 %, the log line 8 %, the rules for prompts 8 %, the trace 4 %."
)
NOBODY = "127.0.0.1:9"
"""Where no renderer is."""

_SCRIPT = """
local tokens = {%(tokens)s}
local requests = {}
local turn = 0

function init()
  for index = 1, %(requests)d do
    local token = tokens[(index - 1) %% #tokens + 1]
    local headers = {["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. token}
    local body = string.gsub(%(body)s, "TURN", index)
    requests[index] = wrk.format("POST", "/api/queue-job", headers, body)
  end
end

function request()
  turn = turn %% #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('\\n{"requests": %%d, "microseconds": %%d, "failed": %%d, "p99": %%d}\\n',
    summary.requests, summary.duration, failed, latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """What wrk found."""

    rate: float
    """Requests in a second."""
    p99_ms: float


async def measure(rounds: int, console: Console) -> list[Row]:
    """Ask the gateway, as many users and as one, and the bare handler, in turn."""
    return await asyncio.to_thread(_measure, rounds, console)


def _measure(rounds: int, console: Console) -> list[Row]:
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("This benchmark needs wrk: apt-get install wrk")
    many: list[_Found] = []
    one: list[_Found] = []
    bare: list[_Found] = []
    with tempfile.TemporaryDirectory() as name, running_postgres() as postgres, ExitStack() as stack:
        folder = Path(name)
        url = stack.enter_context(_gateway(folder, stack.enter_context(postgres.database())))
        bare_url = stack.enter_context(_bare(stack.enter_context(postgres.database())))
        many_script, one_script = _script(folder, USERS), _script(folder, 1)
        runs = ((many, url, many_script), (bare, bare_url, many_script), (one, url, one_script))
        for _, where, script in runs:
            _ask(wrk, where, script, WARM_UP_SECONDS)
        for number in range(1, rounds + 1):
            console.print(f"round {number} of {rounds}")
            for found, where, script in runs:
                found.append(_ask(wrk, where, script, SECONDS))
    return [*_rows(f"{USERS} users", many, bare, "≥ 0.5"), *_rows("one user", one, bare, "")]


def _rows(who: str, ours: list[_Found], bare: list[_Found], goal: str) -> list[Row]:
    rates, slowest = ([[getattr(each, name) for each in side] for side in (ours, bare)] for name in ("rate", "p99_ms"))
    row = Row(who, "requests/s", rates[0], BESIDE, rates[1], goal)
    return [
        replace(row, note="" if row.met is not False else f"what bounds it is {WHAT_BOUNDS}"),
        Row(f"{who}, p99", "ms", slowest[0], BESIDE, slowest[1]),
    ]


@contextmanager
def _gateway(folder: Path, dsn: str) -> Iterator[str]:
    """Run a gateway whose renderer is not there; yield its URL."""
    without = partial(running_cluster, folder, dsn, gateways=1, sdxl=0, wan=0, enhancers=0)
    with without(RENDERERS_SDXL=NOBODY, QUEUE_LIMIT=str(10**9), CREDITS_GRANT=str(10**9)) as cluster:
        yield cluster.gateways[0].url


def _script(folder: Path, users: int) -> Path:
    tokens = ", ".join(f'"{token(f"user-{number}")}"' for number in range(users))
    path = folder / f"{users}.lua"
    path.write_text(_SCRIPT % {"tokens": tokens, "requests": REQUESTS, "body": f"[==[{json.dumps(REQUEST)}]==]"})
    return path


def _ask(wrk: str, url: str, script: Path, seconds: int) -> _Found:
    arguments = ["--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds}s", f"--script={script}", url]
    said = subprocess.run([wrk, *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = json.loads(said.splitlines()[-1])
    if found["failed"]:
        raise RuntimeError(f"{found['failed']} of {found['requests']} requests failed: {said}")
    return _Found(found["requests"] / found["microseconds"] * 1e6, found["p99"] / 1000)


@contextmanager
def _bare(dsn: str) -> Iterator[str]:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "-m", __name__, dsn, str(port)])
    try:
        until(lambda: _answers(url), 30)
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return False
    return True


def _serve_bare(dsn: str, port: int) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        settings = {"synchronous_commit": "on"}
        async with asyncpg.create_pool(dsn, min_size=1, max_size=POOL, server_settings=settings) as pool:
            await pool.execute(
                "CREATE TABLE jobs (id uuid PRIMARY KEY, body jsonb, created_at timestamptz DEFAULT now())"
            )
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/api/queue-job")
    async def queue_job(request: Request, body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        job_id = uuid4()
        await request.app.state.pool.execute("INSERT INTO jobs (id, body) VALUES ($1, $2)", job_id, json.dumps(body))
        return {"id": job_id, "status": "queued"}

    uvicorn.run(app, host="127.0.0.1", port=port, loop="uvloop", log_level="warning", access_log=False)


if __name__ == "__main__":
    _serve_bare(sys.argv[1], int(sys.argv[2]))
