"""An asynchronous client with the face of one that waits, so that one suite holds for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from inspect import isasyncgen, iscoroutine
from types import TracebackType
from typing import Any

END = object()


class Awaited:
    """Runs what an object's methods return on an event loop of the test's own, until it is done."""

    def __init__(self, subject: Any, runner: asyncio.Runner) -> None:
        self._subject = subject
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._subject, name)
        if not callable(found):
            return found
        return lambda *args, **options: self._settle(found(*args, **options))

    def __iter__(self) -> Iterator[Any]:
        yield from self._each(self._subject.__aiter__())

    def __enter__(self) -> Awaited:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle(self._subject.close())

    def _settle(self, value: Any) -> Any:
        if iscoroutine(value):
            value = self._runner.run(value)
        if isasyncgen(value):
            return self._each(value)
        return Awaited(value, self._runner) if hasattr(value, "__aiter__") else value

    def _each(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        async def step() -> Any:
            return await anext(items, END)

        try:
            while (item := self._runner.run(step())) is not END:
                yield item
        finally:
            self._runner.run(items.aclose())
