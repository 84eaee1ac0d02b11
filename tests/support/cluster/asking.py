"""Asking for jobs over both fronts while something is broken: each answer with what it says and how long it took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import grpc
import httpx

from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz.rpc_status import parse
from support.cluster.cluster import Gateway
from support.fronts import token

Front = Literal["rest", "grpc"]
FRONTS: tuple[Front, ...] = ("rest", "grpc")
PATIENCE_S = 60.0
"""After which a caller hangs up: longer than any answer may take, so that one that takes too long is told as such."""


@dataclass(frozen=True, slots=True)
class Request:
    """A job that is asked for; asked for again, it is the same one."""

    front: Front
    key: str
    """The idempotency key."""
    user: str = "alice"
    prompt: str = "a fox"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    took_s: float
    job_id: str | None = None
    """None: it was not accepted, or the answer was lost."""
    reason: str | None = None
    """Why it was refused; None if it was not, or if there was no answer."""
    retry_after_s: float | None = None


async def ask(gateway: Gateway, request: Request) -> Answer:
    """Ask once, without trying again."""
    began = time.monotonic()
    answer = await (_ask_rest if request.front == "rest" else _ask_grpc)(gateway, request)
    return Answer(time.monotonic() - began, *answer)


async def _ask_rest(gateway: Gateway, request: Request) -> tuple[str | None, str | None, float | None]:
    body = {"jobType": "picture", "metadata": {"prompt": request.prompt}}
    async with gateway.http(request.user) as http:
        try:
            reply = await http.post(
                "/api/queue-job", json=body, headers={"idempotency-key": request.key}, timeout=PATIENCE_S
            )
        except httpx.TransportError:
            return None, None, None
    if reply.is_success:
        return reply.json()["job"]["id"], None, None
    retry_after = reply.headers.get("retry-after")
    reason = reply.json()["details"].removeprefix("reason=") if reply.status_code == 503 else str(reply.status_code)
    return None, reason, float(retry_after) if retry_after else None


async def _ask_grpc(gateway: Gateway, request: Request) -> tuple[str | None, str | None, float | None]:
    message = jobs_pb2.CreateJobRequest(job_type="picture", prompt=request.prompt, request_id=request.key)
    metadata = (("authorization", f"Bearer {token(request.user)}"),)
    options = (("grpc.enable_retries", 0),)
    async with grpc.aio.insecure_channel(gateway.node.address, options=options) as channel:
        try:
            reply = await jobs_pb2_grpc.JobServiceStub(channel).CreateJob(
                message, metadata=metadata, timeout=PATIENCE_S
            )
        except grpc.aio.AioRpcError as error:
            said = parse(error)
            return None, said.reason, said.retry_after_s
    return str(reply.job.id), None, None
