"""A job's events as a browser gets them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx

from support.cluster.cluster import Gateway


async def listen(
    gateway: Gateway, job_id: str, *, user: str = "alice", after: int = 0
) -> AsyncIterator[dict[str, Any]]:
    """Yield a job's numbered events as one stream of a gateway sends them; ends when that stream ends or breaks."""
    headers = {"Last-Event-ID": str(after)} if after else {}
    try:
        async with (
            gateway.http(user) as http,
            http.stream("GET", f"/api/jobs/{job_id}/events", headers=headers) as reply,
        ):
            if reply.status_code == httpx.codes.NO_CONTENT:
                return
            async with aclosing(numbered(reply)) as events:
                async for event in events:
                    yield event
    except httpx.TransportError:
        return


async def numbered(reply: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the numbered events of a stream to its end. Raises `httpx.HTTPError` if there is none, or it breaks."""
    reply.raise_for_status()
    async with aclosing(reply.aiter_lines()) as lines:
        async for line in lines:
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                if "sequence" in event:
                    yield event


async def listen_everywhere(gateways: list[Gateway], job_id: str, *, user: str = "alice") -> list[dict[str, Any]]:
    """Follow a job to its end as a page does behind a load balancer: a broken stream goes on at another gateway."""
    events: list[dict[str, Any]] = []
    turn = 0
    while not events or events[-1]["status"] not in ("completed", "failed", "cancelled"):
        gateway = gateways[turn % len(gateways)]
        turn += 1
        if gateway.node.runs:
            after = events[-1]["sequence"] if events else 0
            events += [event async for event in listen(gateway, job_id, user=user, after=after)]
    return events
