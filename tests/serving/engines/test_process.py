from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.engines.engine import (
    EngineDied,
    EngineFailed,
    EngineNotReady,
    EngineOutOfMemory,
    InvalidForEngine,
    MemoryRung,
    PeakMemory,
    TaskWasCancelled,
    Timed,
    Warned,
)
from ourvidz_serving.engines.process import EngineProcess, EngineState
from ourvidz_serving.rendering.engine import EngineInfo, FrameMade, PreviewMade, RenderMessage, RenderTask, StepDone

FACTORY = "scripted_engine:create_engine"


@pytest.fixture(autouse=True)
def _scripted_engine_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


async def until(engine: EngineProcess, condition: Callable[[], bool]) -> None:
    """Wait for a change of the engine after which the condition holds."""
    changed = asyncio.Event()
    engine.on_change(changed.set)
    while not condition():
        changed.clear()
        await changed.wait()


@asynccontextmanager
async def running(config: dict[str, Any] | None = None, **options: float) -> AsyncIterator[EngineProcess]:
    engine = EngineProcess(FACTORY, config or {}, first_backoff_s=0.01, max_backoff_s=0.05, **options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@asynccontextmanager
async def ready(config: dict[str, Any] | None = None, **options: float) -> AsyncIterator[EngineProcess]:
    async with running(config, **options) as engine:
        await until(engine, lambda: engine.state is EngineState.READY)
        yield engine


def ask(prompt: str, *, images: int = 1, steps: int = 2, previews: bool = False) -> render_pb2.RenderRequest:
    sampling = render_pb2.Sampling(prompt=prompt, step_count=steps)
    batch = render_pb2.ImageBatch(sampling=sampling, width_px=640, height_px=512, image_count=images)
    return render_pb2.RenderRequest(render_id="job/1", images=batch, previews=previews)


def task(request: render_pb2.RenderRequest) -> RenderTask:
    return RenderTask(request.SerializeToString(), 7)


async def collect(engine: EngineProcess, request: render_pb2.RenderRequest) -> list[RenderMessage]:
    return [message async for message in engine.run(task(request))]


def pid_of(messages: list[RenderMessage]) -> int:
    return next(int(message.text.removeprefix("pid ")) for message in messages if isinstance(message, Warned))


async def test_a_loaded_engine_says_what_it_can_make() -> None:
    async with ready() as engine:
        assert engine.info == EngineInfo("scripted", "none", [(640, 512)], 6, 0, 200)
        assert (engine.generation, engine.error) == (1, "")


async def test_a_render_yields_everything_the_engine_says_in_order() -> None:
    async with ready() as engine:
        messages = await collect(engine, ask("picture", images=2))
    assert isinstance(messages[0], Warned)
    assert messages[1:3] == [StepDone(1, 2, 0, 2), StepDone(2, 2, 0, 2)]
    assert messages[4:6] == [StepDone(1, 2, 1, 2), StepDone(2, 2, 1, 2)]
    assert messages[7:] == [Timed("denoise", 0.5), PeakMemory(1 << 40), MemoryRung("vae_tiling")]
    for index, message in enumerate((messages[3], messages[6])):
        assert isinstance(message, FrameMade)
        assert message.output_index == index
        expected = np.random.default_rng(7 + index).integers(0, 256, (512, 640, 3), np.uint8)
        np.testing.assert_array_equal(message.pixels, expected)


async def test_previews_come_only_when_asked_for() -> None:
    async with ready() as engine:
        without = await collect(engine, ask("picture"))
        with_them = await collect(engine, ask("picture", previews=True))
    assert not any(isinstance(message, PreviewMade) for message in without)
    assert [message.step for message in with_them if isinstance(message, PreviewMade)] == [1, 2]


async def test_renders_one_after_the_other_run_in_the_same_child() -> None:
    async with ready() as engine:
        first, second = await collect(engine, ask("picture")), await collect(engine, ask("picture"))
        assert pid_of(first) == pid_of(second) != os.getpid()
        assert engine.generation == 1


async def test_a_second_render_at_the_same_time_is_refused() -> None:
    async with ready() as engine, aclosing(engine.run(task(ask("wait")))) as first:
        await anext(first)
        with pytest.raises(RuntimeError, match="one task at a time"):
            await collect(engine, ask("picture"))


async def test_cancelling_ends_the_render_and_keeps_the_child() -> None:
    async with ready() as engine:
        async with aclosing(engine.run(task(ask("wait")))) as messages:
            await anext(messages)
            await engine.cancel()
            with pytest.raises(TaskWasCancelled):
                await anext(messages)
        assert pid_of(await collect(engine, ask("picture")))
        assert engine.generation == 1


async def test_closing_the_iterator_cancels_the_render() -> None:
    async with ready() as engine:
        async with aclosing(engine.run(task(ask("wait")))) as messages:
            await anext(messages)
        assert await collect(engine, ask("picture"))
        assert engine.generation == 1


async def test_cancelling_the_reading_task_cancels_the_render() -> None:
    async with ready() as engine:
        started = asyncio.Event()

        async def read() -> None:
            async with aclosing(engine.run(task(ask("wait")))) as messages:
                async for _ in messages:
                    started.set()

        reading = asyncio.create_task(read())
        await started.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await collect(engine, ask("picture"))
        assert engine.generation == 1


async def test_cancelling_with_nothing_running_changes_nothing() -> None:
    async with ready() as engine:
        await engine.cancel()
        assert await collect(engine, ask("picture"))


async def test_an_engine_that_ignores_a_cancel_is_killed_and_replaced() -> None:
    async with ready(cancel_grace_s=0.05) as engine:
        async with aclosing(engine.run(task(ask("hang")))) as messages:
            await anext(messages)
            await engine.cancel()
            with pytest.raises(TaskWasCancelled):
                await anext(messages)
        await until(engine, lambda: engine.generation == 2 and engine.state is EngineState.READY)
        assert await collect(engine, ask("picture"))


async def test_a_reader_that_stands_still_holds_the_engine_back_and_can_still_cancel(tmp_path: Path) -> None:
    count_file = tmp_path / "count"
    async with ready({"count_file": str(count_file)}) as engine:
        async with aclosing(engine.run(task(ask("flood")))) as messages:
            await anext(messages)
            child = psutil.Process().children()[0]
            # The child's thread blocks on the full socket: its processor time no longer grows.
            before = -1.0
            while (now := sum(child.cpu_times()[:2])) != before:
                before = now
                await asyncio.sleep(0.3)
            assert int(count_file.read_text()) < 20
            await engine.cancel()
        assert engine.generation == 1


async def test_a_child_that_dies_fails_the_render_after_its_finished_pictures_and_is_replaced() -> None:
    async with ready() as engine:
        seen: list[RenderMessage] = []

        async def read() -> None:
            async with aclosing(engine.run(task(ask("crash")))) as messages:
                async for message in messages:
                    seen.append(message)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(EngineDied, match="killed by SIGKILL"):
            await read()
        assert [type(message) for message in seen] == [FrameMade]
        await until(engine, lambda: engine.generation == 2 and engine.state is EngineState.READY)
        assert await collect(engine, ask("picture"))


async def test_a_child_that_dies_idle_is_replaced() -> None:
    async with ready() as engine:
        os.kill(pid_of(await collect(engine, ask("picture"))), signal.SIGKILL)
        await until(engine, lambda: engine.generation == 2 and engine.state is EngineState.READY)
        assert await collect(engine, ask("picture"))


@pytest.mark.parametrize(
    ("prompt", "error", "text"),
    [("oom", EngineOutOfMemory, "no memory is left"), ("bug", EngineFailed, "KeyError: 'unforeseen'")],
)
async def test_a_child_in_an_unknown_state_is_replaced(prompt: str, error: type[Exception], text: str) -> None:
    async with ready() as engine:
        with pytest.raises(error, match=text):
            await collect(engine, ask(prompt))
        assert engine.state is EngineState.LOADING
        await until(engine, lambda: engine.generation == 2 and engine.state is EngineState.READY)
        assert await collect(engine, ask("picture"))


async def test_a_request_that_the_engine_refuses_leaves_the_child_as_it_is() -> None:
    async with ready() as engine:
        with pytest.raises(InvalidForEngine, match="no such thing"):
            await collect(engine, ask("invalid"))
        assert (engine.state, engine.generation) == (EngineState.READY, 1)


async def test_replacing_the_child_fails_the_render_that_runs() -> None:
    async with ready() as engine:
        async with aclosing(engine.run(task(ask("wait")))) as messages:
            await anext(messages)
            await engine.replace("a test asks for it")
            with pytest.raises(EngineDied):
                await anext(messages)
        await until(engine, lambda: engine.generation == 2 and engine.state is EngineState.READY)


async def test_a_model_that_is_not_there_is_named_and_tried_again_until_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    async with running({"needs_folder": str(folder)}) as engine:
        await until(engine, lambda: engine.generation >= 2 and engine.state is EngineState.FAILED)
        assert engine.error == f"{folder} is not there"
        with pytest.raises(EngineNotReady, match="is not there"):
            await collect(engine, ask("picture"))
        folder.mkdir()
        await until(engine, lambda: engine.state is EngineState.READY)
        assert engine.error == ""


async def test_a_child_that_dies_while_it_loads_is_started_again(tmp_path: Path) -> None:
    async with running({"dies_unless": str(tmp_path / "marker")}) as engine:
        await until(engine, lambda: engine.state is EngineState.FAILED)
        assert engine.error == "the engine process was killed by SIGKILL while it loaded the model"
        await until(engine, lambda: engine.state is EngineState.READY)


async def test_a_factory_that_is_not_there_is_a_load_failure_of_one_line() -> None:
    engine = EngineProcess("no_such_module:create_engine", {}, first_backoff_s=60)
    await engine.start()
    await until(engine, lambda: engine.state is EngineState.FAILED)
    assert engine.error == "ModuleNotFoundError: No module named 'no_such_module'"
    await engine.stop()


async def test_stopping_ends_the_child_and_the_render_that_runs() -> None:
    async with ready() as engine:
        pid = pid_of(await collect(engine, ask("picture")))
        async with aclosing(engine.run(task(ask("hang")))) as messages:
            await anext(messages)
            await engine.stop()
            with pytest.raises(EngineDied, match="stopping"):
                await anext(messages)
        assert not psutil.pid_exists(pid)


async def test_signals_meant_for_the_server_do_not_end_its_engine() -> None:
    async with ready() as engine:
        pid = pid_of(await collect(engine, ask("picture")))
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
        assert pid_of(await collect(engine, ask("picture"))) == pid


async def test_no_engine_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    program = f"""
    import asyncio, sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from test_process import ask, pid_of, collect, ready

    async def main():
        async with ready() as engine:
            print("child", pid_of(await collect(engine, ask("picture"))), flush=True)
            await collect(engine, ask("hang"))

    asyncio.run(main())
    """
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), stdout=subprocess.PIPE, cwd=tmp_path
    )
    assert server.stdout is not None
    try:
        # Among the log's lines.
        while not (line := await server.stdout.readline()).startswith(b"child "):
            assert line
        child = psutil.Process(int(line.split()[1]))
    finally:
        server.kill()
        await server.wait()
    await asyncio.to_thread(child.wait, 60)


def test_a_server_that_renders_never_imports_what_its_engine_imports(tmp_path: Path) -> None:
    program = f"""
    import asyncio, sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from test_process import ask, collect, ready

    async def main():
        async with ready() as engine:
            await collect(engine, ask("picture"))

    asyncio.run(main())
    print({{"torch", "diffusers", "transformers", "scripted_engine"}} & set(sys.modules))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "set()"
