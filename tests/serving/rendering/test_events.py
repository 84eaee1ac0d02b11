from __future__ import annotations

import asyncio

import pytest

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.errors import Internal
from ourvidz_serving.rendering.events import EventLog


def step(number: int) -> render_pb2.RenderResponse:
    return render_pb2.RenderResponse(step=render_pb2.Step(step=number))


def preview(number: int) -> render_pb2.Preview:
    return render_pb2.Preview(step=number)


async def indices(log: EventLog, after: int = 0) -> list[int]:
    return [event.index async for event in log.follow(after)]


async def test_a_reader_gets_what_was_there_and_what_comes() -> None:
    log = EventLog()
    log.add(step(1))
    reading = asyncio.create_task(indices(log))
    await asyncio.sleep(0)
    log.add(step(2))
    log.add(step(3))
    log.end()
    assert await reading == [1, 2, 3]


@pytest.mark.parametrize(("after", "expected"), [(0, [1, 2]), (1, [2]), (2, []), (9, [])])
async def test_a_reader_goes_on_where_it_stopped(after: int, expected: list[int]) -> None:
    log = EventLog()
    log.add(step(1))
    log.add(step(2))
    log.end()
    assert await indices(log, after) == expected


async def test_a_reader_ahead_of_the_log_waits_for_what_it_has_not_seen() -> None:
    log = EventLog()
    reading = asyncio.create_task(indices(log, after=2))
    for number in range(1, 5):
        log.add(step(number))
        await asyncio.sleep(0)
    log.end()
    assert await reading == [3, 4]


async def test_an_error_comes_after_the_events() -> None:
    log = EventLog()
    log.add(step(1))
    log.end(Internal("broken"))
    seen = log.follow()
    assert (await anext(seen)).index == 1
    with pytest.raises(Internal, match="broken"):
        await anext(seen)


async def test_a_slow_reader_gets_only_the_latest_preview() -> None:
    log = EventLog()
    reader = log.follow(previews=True)
    log.add(step(1))
    assert (await anext(reader)).index == 1
    for number in range(5):
        log.show(preview(number))
    shown = await anext(reader)
    assert (shown.index, shown.preview.step) == (0, 4)
    log.end()
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


async def test_a_slow_reader_gets_no_preview_behind_the_end() -> None:
    log = EventLog()
    reader = log.follow(previews=True)
    log.add(step(1))
    assert (await anext(reader)).index == 1
    log.show(preview(1))
    log.add(render_pb2.RenderResponse(finished=render_pb2.Finished()))
    assert (await anext(reader)).HasField("finished")
    log.end()
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


async def test_previews_are_not_replayed() -> None:
    log = EventLog()
    log.show(preview(1))
    log.add(step(1))
    log.end()
    assert [event.WhichOneof("event") async for event in log.follow(previews=True)] == ["step"]
