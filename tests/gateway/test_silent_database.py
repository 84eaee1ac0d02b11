"""A database that is out of connections, or behind a line that has fallen silent: how long everything waits."""

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from time import monotonic
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest

from ourvidz_gateway import database as databases
from ourvidz_gateway import signals as signalling
from ourvidz_gateway.backlog import BacklogView
from ourvidz_gateway.database import Database, open_database
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.renderers import Renderers
from ourvidz_gateway.signals import Signals
from support.jobs import Bench
from support.line import Line, open_line

CONNECT_S = 0.5
COMMAND_S = 1.0
SLACK_S = 0.5


@pytest.fixture(autouse=True)
def shorter_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "CONNECT_TIMEOUT_S", CONNECT_S)
    monkeypatch.setattr(databases, "COMMAND_TIMEOUT_S", COMMAND_S)
    monkeypatch.setattr(databases, "CLOSE_TIMEOUT_S", CONNECT_S)
    monkeypatch.setattr(signalling, "CHECK_S", COMMAND_S)


@pytest.fixture
def line(dsn: str) -> Iterator[Line]:
    """A line to the test's database."""
    with open_line(f"{parse_qs(urlsplit(dsn).query)['host'][0]}/.s.PGSQL.5432") as line:
        yield line


@pytest.fixture
def far_dsn(dsn: str, line: Line) -> str:
    """The database at the end of the line."""
    return f"postgresql://postgres@127.0.0.1:{line.port}{urlsplit(dsn).path}?sslmode=disable"


@asynccontextmanager
async def refused_within(seconds: float):
    began = monotonic()
    with pytest.raises(DatabaseUnavailable) as refusal:
        yield
    assert monotonic() - began < seconds + SLACK_S
    assert refusal.value.retry_after_s


async def test_who_finds_all_connections_taken_waits_for_one_as_long_as_for_a_new_one(dsn: str):
    async with open_database(dsn, max_connections=2) as database:
        taken = [asyncio.create_task(database.execute("SELECT pg_sleep(0.9)")) for _ in range(2)]
        await asyncio.sleep(0)
        async with refused_within(CONNECT_S):
            await database.execute("SELECT 1")
        await asyncio.gather(*taken)
        await database.execute("SELECT 1")


async def test_a_statement_whose_answer_never_comes_ends_and_its_connection_is_not_used_again(far_dsn: str, line: Line):
    async with open_database(far_dsn, max_connections=1) as database:
        await database.execute("SELECT 1")
        line.cut()
        async with refused_within(COMMAND_S):
            await database.execute("SELECT 1")
        began = monotonic()
        await database.execute("SELECT 1")
        assert monotonic() - began < COMMAND_S / 2


async def test_who_is_stopped_amid_a_statement_waits_for_nothing(far_dsn: str, line: Line):
    async with open_database(far_dsn, max_connections=1) as database:
        line.stall()
        began = monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await database.execute("SELECT 1")
        assert monotonic() - began < COMMAND_S / 2


async def test_a_statement_that_was_given_up_ends_in_the_database_too(database: Database, far_dsn: str, line: Line):
    async with open_database(far_dsn, max_connections=1) as far:
        statement = asyncio.create_task(far.execute("SELECT pg_sleep(60)"))
        running = (
            "SELECT count(*) AS running FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"
        )
        while not (await database.fetch(running))[0]["running"]:
            await asyncio.sleep(0.02)
        line.stall()  # nor does a cancel get through
        with pytest.raises(DatabaseUnavailable):
            await statement
        async with asyncio.timeout(2 * COMMAND_S):
            while (await database.fetch(running))[0]["running"]:
                await asyncio.sleep(0.05)


async def test_closing_does_not_wait_for_a_silent_database(far_dsn: str, line: Line):
    async with open_database(far_dsn) as database:
        await database.execute("SELECT 1")
        line.stall()
        began = monotonic()
    assert monotonic() - began < CONNECT_S + SLACK_S


async def test_all_who_wait_for_the_same_count_share_its_failure(far_dsn: str, line: Line):
    """One after the other they would wait for twenty times as long."""
    async with open_database(far_dsn) as far:
        view = BacklogView(Bench(far).queue, Renderers({}, far, service_token=None, on_ready=lambda _: None))
        line.stall()
        began = monotonic()
        found = await asyncio.gather(*(view.status() for _ in range(20)), return_exceptions=True)
        assert monotonic() - began < COMMAND_S + SLACK_S
        assert {type(each) for each in found} == {DatabaseUnavailable}


async def test_signals_are_heard_again_after_their_connection_died_without_a_word(
    dsn: str, far_dsn: str, line: Line, database: Database
):
    heard: asyncio.Queue[UUID] = asyncio.Queue()

    def nothing(_: object) -> None:
        pass

    here = Signals(far_dsn, on_work=nothing, on_cancel=heard.put_nowait, on_preview=nothing)
    there = Signals(dsn, on_work=nothing, on_cancel=nothing, on_preview=nothing)
    running = [asyncio.create_task(each.run()) for each in (here, there)]
    try:
        assert await signal_until_heard(there, heard, within_s=5)
        line.cut()
        # As long as the line is tried, and then waited for, and then opened anew.
        assert await signal_until_heard(there, heard, within_s=2 * COMMAND_S + signalling.RECONNECT_S + 4)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def signal_until_heard(sender: Signals, heard: asyncio.Queue[UUID], *, within_s: float) -> UUID:
    async with asyncio.timeout(within_s):
        while heard.empty():
            sender.cancel(uuid4())
            await asyncio.sleep(0.1)
    return heard.get_nowait()
