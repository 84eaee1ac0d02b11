"""Clients as they should be: they ask again elsewhere, under the same key, and follow their jobs over all gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4

import httpx

from support.cluster.cluster import Cluster
from support.cluster.sse import listen_everywhere

PAUSE_S = 0.05
"""Between two tries at asking."""


async def ask_until_accepted(cluster: Cluster, prompt: str, *, first: int = 0, **more: Any) -> str:
    """Ask for a job as behind a load balancer, at one gateway after the other, until one accepts it."""
    key = uuid4().hex
    for turn in count(first):
        gateway = cluster.gateways[turn % len(cluster.gateways)]
        if gateway.node.runs:
            try:
                return await cluster.ask(gateway, prompt, key=key, **more)
            except httpx.HTTPStatusError as refused:
                # Nothing but "not now" may be said to a good request.
                if refused.response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    raise
            except httpx.TransportError:
                pass
        await asyncio.sleep(PAUSE_S)
    raise AssertionError("unreachable")


@dataclass
class Load:
    """Jobs that are asked for one after the other, each followed to its end."""

    cluster: Cluster
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What the follower of each job has seen."""
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when no more jobs are to be asked for."""
    _following: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, pause_s: float, prompt: str) -> None:
        """Ask for a job of each type in turn, until it is enough. What was asked for is always waited for."""
        for turn in count():
            if self.enough.is_set():
                return
            job_type = ("picture", "clip", "picture", "enhanced_clip")[turn % 4]
            job_id = await ask_until_accepted(
                self.cluster, prompt, first=turn, job_type=job_type, user=f"user-{turn % 5}"
            )
            task = asyncio.create_task(self._follow(job_id, f"user-{turn % 5}"))
            self._following.add(task)
            await asyncio.sleep(pause_s)

    async def followed(self) -> None:
        """Wait until all jobs were followed to their ends."""
        await asyncio.gather(*self._following)

    async def _follow(self, job_id: str, user: str) -> None:
        self.events[job_id] = await listen_everywhere(self.cluster.gateways, job_id, user=user)


@asynccontextmanager
async def under_load(cluster: Cluster, *, pause_s: float = 0.25, prompt: str = "a fox pace:5") -> AsyncIterator[Load]:
    """Keep asking for jobs until the end of the block; then all of them are followed to their ends."""
    load = Load(cluster)
    asking = asyncio.create_task(load.run(pause_s, prompt))
    try:
        yield load
    finally:
        load.enough.set()
        await asking
    await load.followed()
