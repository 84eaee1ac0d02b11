"""An enhancer on a real server that answers what a test has written down.

A call that nobody wrote an answer for is UNIMPLEMENTED, and answers that nobody asked for fail the test at its end.
"""

# the contract names the methods

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from ourvidz.api.enhance.v1 import enhance_pb2, enhance_pb2_grpc
from ourvidz_gateway.renderers import ENHANCE_SERVICE
from ourvidz_serving.errors import ServiceError
from ourvidz_serving.server import Server
from ourvidz_serving.settings import ServerSettings

HOLD = "hold"
"""A part of an answer: wait until the test lets go."""


class ScriptedEnhancer(enhance_pb2_grpc.EnhanceServiceServicer):
    """Answers calls in the order written down with `answer`; keeps the `requests` that came."""

    def __init__(self, slots: int = 1) -> None:
        self.requests: list[enhance_pb2.EnhanceRequest] = []
        self.held = asyncio.Event()
        """Set while a call waits at a `HOLD`."""
        self.cancelled = asyncio.Event()
        """Set once a call ended before its answer did."""
        self.address = ""
        self._slots = slots
        self._script: deque[tuple[Any, ...]] = deque()
        self._released = asyncio.Event()

    def answer(self, *parts: Any) -> None:
        """Write down the next answer: pieces of text, `HOLD`, and at the end what `finished` makes or an error."""
        self._script.append(parts)

    def release(self) -> None:
        """Let go of the call that is held."""
        self._released.set()

    async def GetEnhancer(self, request: Any, context: Any) -> enhance_pb2.GetEnhancerResponse:
        return enhance_pb2.GetEnhancerResponse(model="scripted", slot_count=self._slots)

    async def Enhance(self, request: Any, context: Any) -> AsyncIterator[enhance_pb2.EnhanceResponse]:
        self.requests.append(request)
        if not self._script:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the script has no answer here")
        parts = self._script.popleft()
        try:
            if not isinstance(parts[0], ServiceError):
                yield enhance_pb2.EnhanceResponse(accepted=enhance_pb2.Accepted(model="scripted"))
            for part in parts:
                if part == HOLD:
                    self.held.set()
                    await self._released.wait()
                elif isinstance(part, ServiceError):
                    raise part
                elif isinstance(part, str):
                    yield enhance_pb2.EnhanceResponse(piece=enhance_pb2.Piece(text=part))
                else:
                    yield enhance_pb2.EnhanceResponse(finished=part)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.held.clear()
            self._released.clear()


def finished(text: str, **fields: Any) -> enhance_pb2.Finished:
    """The end of an answer."""
    return enhance_pb2.Finished(text=text, model="scripted", **fields)


@asynccontextmanager
async def enhancing(*, port: int = 0, slots: int = 1) -> AsyncIterator[ScriptedEnhancer]:
    """Serve a script on loopback; its `address` says where."""
    enhancer = ScriptedEnhancer(slots)
    server = Server(ServerSettings(grpc_port=port, drain_grace_s=0), name="enhancer", require_service_token=False)
    enhance_pb2_grpc.add_EnhanceServiceServicer_to_server(enhancer, server.grpc)
    server.add_service(ENHANCE_SERVICE)
    await server.start()
    server.set_serving(ENHANCE_SERVICE, True)
    enhancer.address = f"127.0.0.1:{server.port}"
    try:
        yield enhancer
    finally:
        await server.drain()
    assert not enhancer._script, f"nobody asked for: {list(enhancer._script)}"
