from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ourvidz.errors import LocalStackError
from ourvidz.local import supervisor as supervision
from ourvidz.local.supervisor import Supervisor
from support.stand_in import (
    ENDS_WELL,
    LEAVES_A_CHILD,
    WAITS,
    WILL_NOT_END,
    StandIns,
    stand_ins,
)


@pytest.fixture
async def programs(tmp_path: Path) -> AsyncIterator[StandIns]:
    async with stand_ins(tmp_path) as programs:
        yield programs


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
async def supervisor(reports: list[str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.01)
    supervisor = Supervisor(reports.append)
    yield supervisor
    await supervisor.stop()


async def test_programs_end_in_the_reverse_order_of_their_start(programs: StandIns, supervisor: Supervisor):
    for name in ("database", "renderer", "gateway"):
        supervisor.start(programs.program(name, ENDS_WELL))
        await programs.next(name, "up")
    await supervisor.all_healthy()
    await supervisor.stop()
    for name in ("gateway", "renderer", "database"):
        await programs.next(name, "term")
        await programs.next(name, "gone")


async def test_a_program_that_dies_is_started_again(programs: StandIns, supervisor: Supervisor, reports: list[str]):
    supervisor.start(programs.program("gateway", WAITS))
    await supervisor.all_healthy()
    first = await programs.next("gateway", "up")
    os.kill(first, signal.SIGKILL)
    await programs.next("gateway", "gone")
    second = await programs.next("gateway", "up")
    assert second != first
    assert reports[0].startswith("gateway was ended by SIGKILL; starting it again")


async def test_a_program_that_dies_often_after_it_was_healthy_is_started_again_each_time(
    programs: StandIns, supervisor: Supervisor
):
    supervisor.start(programs.program("gateway", WAITS))
    await supervisor.all_healthy()
    for _ in range(supervision.DEATHS_BEFORE_READY + 1):
        os.kill(await programs.next("gateway", "up"), signal.SIGKILL)
        await programs.next("gateway", "gone")
    await programs.next("gateway", "up")


async def test_a_program_that_can_never_be_healthy_stops_the_stack_with_its_own_words(
    programs: StandIns, supervisor: Supervisor
):
    supervisor.start(programs.program("gateway", "sys.exit('no such module')"))
    with pytest.raises(LocalStackError, match=r"(?s)^gateway can't start: see .*gateway.log\n.*no such module$"):
        await supervisor.all_healthy()


async def test_wrong_settings_stop_the_stack_at_the_first_try(
    programs: StandIns, supervisor: Supervisor, reports: list[str]
):
    supervisor.start(programs.program("gateway", "print('OURVIDZ_X is missing', flush=True); os._exit(2)"))
    with pytest.raises(LocalStackError, match="OURVIDZ_X is missing"):
        await supervisor.failure()
    assert reports == []


async def test_one_that_fails_does_not_keep_the_others_from_being_stopped(programs: StandIns, supervisor: Supervisor):
    supervisor.start(programs.program("database", ENDS_WELL))
    await programs.next("database", "up")
    supervisor.start(programs.program("gateway", "tell('up'); os._exit(2)"))
    await programs.next("gateway", "up")
    await programs.next("gateway", "gone")
    with pytest.raises(LocalStackError):
        await supervisor.failure()
    await supervisor.stop()
    await programs.next("database", "term")
    await programs.next("database", "gone")


async def test_a_program_that_will_not_end_is_killed(programs: StandIns, supervisor: Supervisor, reports: list[str]):
    supervisor.start(programs.program("renderer", WILL_NOT_END, stop_patience_s=0.05))
    await programs.next("renderer", "up")
    await supervisor.stop()
    await programs.next("renderer", "term")
    await programs.next("renderer", "gone")
    assert "renderer did not end in time and is killed" in reports[0]


async def test_hurrying_waits_for_no_drain(programs: StandIns, supervisor: Supervisor):
    supervisor.start(programs.program("renderer", WILL_NOT_END, stop_patience_s=3600))
    await programs.next("renderer", "up")
    stopping = asyncio.create_task(supervisor.stop())
    await programs.next("renderer", "term")
    supervisor.hurry()
    await programs.next("renderer", "gone")
    await stopping


async def test_nothing_that_a_program_started_outlives_it(programs: StandIns, supervisor: Supervisor):
    supervisor.start(programs.program("renderer", LEAVES_A_CHILD))
    await programs.next("renderer", "up")
    await supervisor.stop()
    await programs.next("renderer", "term")
    await programs.next("renderer", "gone")


async def test_stopping_does_not_wait_for_the_pause_before_the_next_start(
    programs: StandIns, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 3600.0)
    supervisor.start(programs.program("gateway", WAITS))
    os.kill(await programs.next("gateway", "up"), signal.SIGKILL)
    await programs.next("gateway", "gone")
    await asyncio.wait_for(supervisor.stop(), 30)


async def test_a_log_begins_anew_with_each_start_of_the_stack(
    programs: StandIns, supervisor: Supervisor, tmp_path: Path
):
    (tmp_path / "gateway.log").write_text("from last week\n")
    supervisor.start(programs.program("gateway", "print('hello', flush=True)\n" + WAITS))
    os.kill(await programs.next("gateway", "up"), signal.SIGKILL)
    await programs.next("gateway", "gone")
    await programs.next("gateway", "up")
    assert (tmp_path / "gateway.log").read_text() == "hello\nhello\n"


SUPERVISED = """
import asyncio, sys
from pathlib import Path
from support.stand_in import ENDS_WITH_STDIN, WILL_NOT_END, StandIns
from ourvidz.local.supervisor import Supervisor

async def main():
    programs = StandIns(int(sys.argv[1]), Path(sys.argv[2]))
    supervisor = Supervisor(print)
    supervisor.start(programs.program("renderer", WILL_NOT_END))
    supervisor.start(programs.program("database", ENDS_WITH_STDIN, watches_stdin=True))
    await supervisor.failure()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
async def test_a_supervisor_that_is_killed_leaves_nothing_running(programs: StandIns, tmp_path: Path):
    tests = Path(__file__).parents[2]
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SUPERVISED,
        str(programs.port),
        str(tmp_path),
        env={**os.environ, "PYTHONPATH": str(tests)},
    )
    up = {(await asyncio.wait_for(programs.told.get(), 30))[:2] for _ in range(2)}
    assert up == {("renderer", "up"), ("database", "up")}
    supervisor.kill()
    await supervisor.wait()
    after = {(await asyncio.wait_for(programs.told.get(), 30))[:2] for _ in range(3)}
    assert after == {("renderer", "gone"), ("database", "eof"), ("database", "gone")}
