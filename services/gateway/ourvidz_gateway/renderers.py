"""The renderers and enhancers that this gateway can reach: found by address or DNS, watched through their health.

A renderer takes work while its health says SERVING. Which of its slots are taken stands in the database, where all
gateways see the same. An address that DNS no longer names gets no new work; it is not dead, and what runs there goes on.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ourvidz.api.enhance.v1 import enhance_pb2, enhance_pb2_grpc
from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.jobs import Kind
from ourvidz_serving.channel import open_channel

log = structlog.get_logger()

RENDER_SERVICE = "ourvidz.api.render.v1.RenderService"
ENHANCE_SERVICE = "ourvidz.api.enhance.v1.EnhanceService"
LONGEST_REST_S = 60.0
"""For how long a server is left alone at most after failures."""
DNS_INTERVAL_S = 5.0
CALL_TIMEOUT_S = 5.0

_REGISTER = """
INSERT INTO renderer_slots (kind, address, slot) SELECT $1, $2, generate_series(0, $3::integer - 1)
ON CONFLICT DO NOTHING
"""
_SHRINK = "DELETE FROM renderer_slots WHERE kind = $1 AND address = $2 AND slot >= $3 AND job_id IS NULL"


@dataclass(slots=True)
class _Renderer:
    channel: grpc.aio.Channel
    users: int = 0
    """Calls that run on the channel."""
    named: bool = True
    """Whether settings or DNS still name the address."""
    ready: bool = False
    watch: asyncio.Task[None] | None = field(default=None)


class Renderers:
    """All renderers, by kind and address. `on_ready` is called when one of a kind can take work."""

    def __init__(
        self,
        targets: Mapping[Kind, Sequence[str]],
        database: Database,
        *,
        service_token: str | None,
        on_ready: Callable[[Kind], None],
    ) -> None:
        self._targets = targets
        self._database = database
        self._service_token = service_token
        self._on_ready = on_ready
        self._renderers: dict[tuple[Kind, str], _Renderer] = {}
        self._failures: Counter[tuple[Kind, str]] = Counter()
        """Attempts that failed in a row at an address, as far as this gateway ran them."""

    def note_success(self, kind: Kind, address: str) -> None:
        """Take note that an attempt came to a good end there."""
        del self._failures[kind, address]

    def note_failure(self, kind: Kind, address: str) -> float:
        """Take note that an attempt failed there; return the seconds for which the slot is to be left alone.

        A server that fails at once would otherwise be free at once, and draw in one job after the other. One failure
        may be the job's own fault; from the second in a row on, the rest doubles with each.
        """
        self._failures[kind, address] += 1
        in_a_row = self._failures[kind, address]
        return 0.0 if in_a_row == 1 else min(2.0 ** min(in_a_row - 2, 10), LONGEST_REST_S)

    def configured(self, kind: Kind) -> bool:
        """Whether the settings name any renderer of this kind, up or down."""
        return bool(self._targets.get(kind))

    def ready(self, kind: Kind) -> list[str]:
        """Return the addresses of this kind that can take work now."""
        return [address for (of, address), renderer in self._renderers.items() if of == kind and renderer.ready]

    @asynccontextmanager
    async def channel(self, kind: Kind, address: str) -> AsyncIterator[grpc.aio.Channel]:
        """Lend a channel to an address, also to one that nobody names any more."""
        key = (kind, address)
        renderer = self._renderers.get(key)
        if renderer is None:
            renderer = self._renderers[key] = _Renderer(self._open(address), named=False)
        renderer.users += 1
        try:
            yield renderer.channel
        finally:
            renderer.users -= 1
            await self._drop_if_unused(key, renderer)

    async def run(self) -> None:
        """Find and watch renderers, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                for kind, targets in self._targets.items():
                    if targets:
                        group.create_task(self._find(kind, targets), name=f"find {kind} renderers")
        finally:
            for key, renderer in list(self._renderers.items()):
                renderer.named = False
                if renderer.watch:
                    renderer.watch.cancel()
                    await asyncio.gather(renderer.watch, return_exceptions=True)
                await self._drop_if_unused(key, renderer)

    async def _find(self, kind: Kind, targets: Sequence[str]) -> None:
        while True:
            named: set[str] = set()
            complete = True
            for target in targets:
                try:
                    named.update(await _resolve(target))
                except OSError as error:
                    # What DNS can't answer now may still be there: nothing vanishes on a failed look-up.
                    log.warning("address can't be resolved", target=target, error=str(error))
                    complete = False
            for address in named:
                self._appear(kind, address)
            if complete:
                for key, renderer in list(self._renderers.items()):
                    if key[0] == kind and key[1] not in named and renderer.named:
                        await self._vanish(key, renderer)
            if complete and not any(target.startswith("dns:") for target in targets):
                await asyncio.get_running_loop().create_future()  # for ever: fixed addresses never change
            await asyncio.sleep(DNS_INTERVAL_S)

    def _appear(self, kind: Kind, address: str) -> None:
        renderer = self._renderers.get((kind, address))
        if renderer is None:
            renderer = self._renderers[kind, address] = _Renderer(self._open(address))
        renderer.named = True
        if renderer.watch is None:
            renderer.watch = asyncio.create_task(self._watch(kind, address, renderer), name=f"watch {address}")

    async def _vanish(self, key: tuple[Kind, str], renderer: _Renderer) -> None:
        log.info("renderer is no longer named", kind=key[0], address=key[1])
        renderer.named = False
        renderer.ready = False
        if renderer.watch:
            renderer.watch.cancel()
            await asyncio.gather(renderer.watch, return_exceptions=True)
            renderer.watch = None
        await self._drop_if_unused(key, renderer)

    async def _drop_if_unused(self, key: tuple[Kind, str], renderer: _Renderer) -> None:
        if not renderer.named and renderer.users == 0 and key in self._renderers:
            del self._renderers[key]
            await renderer.channel.close()

    async def _watch(self, kind: Kind, address: str, renderer: _Renderer) -> None:
        """Follow one renderer's health for ever."""
        service = ENHANCE_SERVICE if kind is Kind.ENHANCER else RENDER_SERVICE
        while True:
            try:
                async for health in health_pb2_grpc.HealthStub(renderer.channel).Watch(
                    health_pb2.HealthCheckRequest(service=service)
                ):
                    serving = health.status == health_pb2.HealthCheckResponse.SERVING
                    if serving and not renderer.ready:
                        renderer.ready = await self._register(kind, address, renderer)
                        if renderer.ready:
                            log.info("renderer is ready", kind=kind, address=address)
                            self._on_ready(kind)
                    elif not serving and renderer.ready:
                        renderer.ready = False
                        log.info("renderer takes no work", kind=kind, address=address)
            except (grpc.aio.AioRpcError, DatabaseUnavailable) as error:
                if renderer.ready:
                    log.warning("renderer is out of reach", kind=kind, address=address, error=_brief(error))
            except Exception:
                log.exception("watching a renderer failed, it is tried again", kind=kind, address=address)
            renderer.ready = False
            await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311  # spreads reconnects, keeps no secret

    async def _register(self, kind: Kind, address: str, renderer: _Renderer) -> bool:
        """Make sure that the renderer's slots stand in the database; False when it is of another kind."""
        slot_count = await _slot_count(kind, address, renderer.channel)
        if slot_count is None:
            return False
        await self._database.execute(_REGISTER, kind, address, slot_count)
        await self._database.execute(_SHRINK, kind, address, slot_count)
        return True

    def _open(self, address: str) -> grpc.aio.Channel:
        return open_channel(address, service_token=self._service_token)


async def _slot_count(kind: Kind, address: str, channel: grpc.aio.Channel) -> int | None:
    """Ask a server how many slots it has; None when it is of another kind."""
    if kind is Kind.ENHANCER:
        enhancer = enhance_pb2_grpc.EnhanceServiceStub(channel)
        about_enhancer = await enhancer.GetEnhancer(enhance_pb2.GetEnhancerRequest(), timeout=CALL_TIMEOUT_S)
        return int(about_enhancer.slot_count)
    renderer = render_pb2_grpc.RenderServiceStub(channel)
    about = await renderer.GetRenderer(render_pb2.GetRendererRequest(), timeout=CALL_TIMEOUT_S)
    if about.kind != kind:
        log.error("renderer is of another kind", address=address, expected=kind, found=about.kind)
        return None
    return int(about.slot_count)


async def _resolve(target: str) -> list[str]:
    """Return the addresses behind a target: `host:port` is one, `dns:///name:port` is all that DNS names."""
    if not target.startswith("dns:///"):
        return [target]
    host, _, port = target.removeprefix("dns:///").rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=1)
    hosts = sorted({str(info[4][0]) for info in found})
    return [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in hosts]


def _brief(error: Exception) -> str:
    return error.details() or error.code().name if isinstance(error, grpc.aio.AioRpcError) else str(error)
