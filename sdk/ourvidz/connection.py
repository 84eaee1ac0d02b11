"""Makes calls: over a channel that waits for each answer, or over one for an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import grpc
import grpc.aio

from ourvidz.address import Address
from ourvidz.calls.call import Call
from ourvidz.channel import open_async_channel, open_channel
from ourvidz.pages import Page
from ourvidz.rpc_errors import readable

Result = TypeVar("Result")
Item = TypeVar("Item")

CALL_TIMEOUT_S = 30.0
LONGEST_PAGE = 100

PageCall = Callable[[str | None], Call[Page[Item]]]
"""Makes the call for the page that a token leads to."""


class Connection:
    """Calls to one gateway; safe to use from several threads. `timeout_s` is how long a call may take, repeats included.

    Nothing is connected before the first call. Raises a kind of `OurVidzError` for whatever the server says.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._channel = open_channel(address.grpc)
        self._stubs: dict[type[Any], Any] = {}

    def close(self) -> None:
        """Close the channel; calls that still run end with an error."""
        self._channel.close()

    def answer(self, call: Call[Result], timeout_s: float | None = None) -> Result:
        """Make a call and return its answer."""
        timeout_s = timeout_s or call.timeout_s or self._timeout_s
        try:
            return call.read(self._method(call)(call.request, metadata=self._address.metadata, timeout=timeout_s))
        except grpc.RpcError as error:
            raise readable(error, self._address.grpc) from error

    def stream(self, call: Call[Result]) -> Iterator[Result]:
        """Make a call that is answered with a stream, and yield what comes, without a time limit."""
        running = self._method(call)(call.request, metadata=self._address.metadata)
        try:
            for message in running:
                yield call.read(message)
        except grpc.RpcError as error:
            raise readable(error, self._address.grpc) from error
        finally:
            running.cancel()

    def every(self, page_call: PageCall[Item]) -> Iterator[Item]:
        """Yield the items of all pages; the next page is asked for when it is needed."""
        token: str | None = None
        while True:
            page = self.answer(page_call(token))
            yield from page
            token = page.next_page_token
            if token is None:
                return

    def _method(self, call: Call[Any]) -> Any:
        if call.service not in self._stubs:
            self._stubs[call.service] = call.service(self._channel)
        return getattr(self._stubs[call.service], call.method)


class AsyncConnection:
    """As `Connection`, for the event loop that runs when the first call is made."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[type[Any], Any] = {}

    async def close(self) -> None:
        """Close the channel; calls that still run end with an error."""
        if self._channel is not None:
            await self._channel.close()

    async def answer(self, call: Call[Result], timeout_s: float | None = None) -> Result:
        """Make a call and return its answer."""
        timeout_s = timeout_s or call.timeout_s or self._timeout_s
        try:
            return call.read(await self._method(call)(call.request, metadata=self._address.metadata, timeout=timeout_s))
        except grpc.RpcError as error:
            raise readable(error, self._address.grpc) from error

    async def stream(self, call: Call[Result]) -> AsyncGenerator[Result, None]:
        """Make a call that is answered with a stream, and yield what comes, without a time limit."""
        running = self._method(call)(call.request, metadata=self._address.metadata)
        try:
            async for message in running:
                yield call.read(message)
        except grpc.RpcError as error:
            raise readable(error, self._address.grpc) from error
        finally:
            running.cancel()

    async def every(self, page_call: PageCall[Item]) -> AsyncIterator[Item]:
        """Yield the items of all pages; the next page is asked for when it is needed."""
        token: str | None = None
        while True:
            page = await self.answer(page_call(token))
            for item in page:
                yield item
            token = page.next_page_token
            if token is None:
                return

    def _method(self, call: Call[Any]) -> Any:
        # A channel of grpc.aio belongs to the loop that it is opened in, and a client may be made before there is one.
        if self._channel is None:
            self._channel = open_async_channel(self._address.grpc)
        if call.service not in self._stubs:
            self._stubs[call.service] = call.service(self._channel)
        return getattr(self._stubs[call.service], call.method)
