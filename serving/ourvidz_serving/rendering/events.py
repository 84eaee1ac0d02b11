"""The events of one render, kept so that any number of readers can follow them at their own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ourvidz.api.render.v1 import render_pb2


class EventLog:
    """The numbered events of one render, and the latest preview.

    All readers read the one list, so that a slow reader holds nobody up and costs no memory of its own. Lives as long
    as its render or its last reader, whichever is longer.
    """

    def __init__(self) -> None:
        self._events: list[render_pb2.RenderResponse] = []
        self._preview: render_pb2.RenderResponse | None = None
        self._preview_count = 0
        self._error: Exception | None = None
        self._ended = False
        self._changed = asyncio.Event()

    @property
    def next_index(self) -> int:
        """The index that the next event will get, from 1."""
        return len(self._events) + 1

    def add(self, event: render_pb2.RenderResponse) -> None:
        """Give an event its index and show it to all readers; the log owns it from then on."""
        event.index = self.next_index
        self._events.append(event)
        if event.HasField("finished"):
            # Nothing comes after it, not even for a reader who has the last preview still to see.
            self._preview = None
        self._wake()

    def show(self, preview: render_pb2.Preview) -> None:
        """Replace the latest preview; readers who have not seen the one before never will."""
        self._preview = render_pb2.RenderResponse(preview=preview)
        self._preview_count += 1
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Say that no event follows; `error` is what readers then get instead of a plain end."""
        self._error = error
        self._ended = True
        self._wake()

    async def follow(self, after: int = 0, *, previews: bool = False) -> AsyncIterator[render_pb2.RenderResponse]:
        """Yield each event with an index greater than `after` once and in order, until the end.

        Previews come in between if asked for, only those made from now on. Raises the error that the log ended with.
        """
        position, shown = after, self._preview_count
        while True:
            # We take the wake-up call before we look: what changes while the reader is busy then wakes us at once.
            changed = self._changed
            while position < len(self._events):
                yield self._events[position]
                position += 1
            if previews and self._preview is not None and shown < self._preview_count:
                shown = self._preview_count
                yield self._preview
            elif self._ended and position >= len(self._events):
                if self._error is not None:
                    raise self._error.with_traceback(None)
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
