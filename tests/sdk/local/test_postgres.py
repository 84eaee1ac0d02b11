"""The embedded database, for real: as this user, and where this is root, as another user too."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from ourvidz.local.folder import DataFolder

START = Callable[[], "Running"]

USERS = ["root", "nobody"] if os.geteuid() == 0 else [pwd.getpwuid(os.geteuid()).pw_name]


class Running:
    """A keeper and the database that it keeps."""

    def __init__(self, folder: DataFolder, user: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ourvidz.local.postgres", str(folder.path), str(folder.roots_databases)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            **as_user(user),
        )
        deadline = time.monotonic() + 60
        while not (told := self._told(folder)) or int(told[0]) != self.process.pid:
            assert self.process.poll() is None, "the keeper ended"
            assert time.monotonic() < deadline, "the database did not start"
            time.sleep(0.02)  # as the supervisor does: the file is all that is told
        self.dsn = told[1]
        self.postmaster = int((folder.path / "postgres" / "postmaster.pid").read_text().split()[0])

    async def run(self, query: str) -> Any:
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    def stop(self) -> int:
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(60)

    @staticmethod
    def _told(folder: DataFolder) -> list[str]:
        return folder.postgres_ready.read_text().split() if folder.postgres_ready.exists() else []


def as_user(user: str) -> dict[str, Any]:
    """What makes subprocess run as the user; nothing where that is this one, since only root may ask for it."""
    return {} if pwd.getpwnam(user).pw_uid == os.geteuid() else {"user": user, "extra_groups": []}


def can_run_python(user: str) -> bool:
    try:
        return subprocess.run([sys.executable, "-c", ""], check=False, cwd="/", **as_user(user)).returncode == 0
    except PermissionError:
        return False


def runs(pid: int) -> bool:
    """Whether the process does; a dead one that nobody collected yet does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture(params=USERS)
def start(request: pytest.FixtureRequest) -> Iterator[START]:
    if not can_run_python(request.param):
        pytest.skip(f"{request.param} can't run {sys.executable}, which lies in a folder that is closed to others")
    # Not tmp_path: another user must be able to reach it.
    place = Path(tempfile.mkdtemp(prefix="ourvidz-postgres-"))
    place.chmod(0o755)
    folder = DataFolder(place / "data", place / "databases")
    folder.make()
    user = pwd.getpwnam(request.param)
    if user.pw_uid != os.geteuid():
        os.chown(folder.path, user.pw_uid, user.pw_gid)
    running: list[Running] = []

    def start() -> Running:
        running.append(Running(folder, request.param))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.stop()
        assert each.process.stdin
        each.process.stdin.close()
        assert not runs(each.postmaster)
    shutil.rmtree(place)


async def test_a_second_start_finds_what_the_first_stored(start: START):
    first = start()
    await first.run("CREATE TABLE jobs AS SELECT 7 AS id")
    assert first.stop() == 0
    assert not runs(first.postmaster)
    assert await start().run("SELECT id FROM jobs") == 7


async def test_sigterm_stops_the_database_too(start: START):
    keeper = start()
    keeper.process.terminate()
    assert keeper.process.wait(60) == 0
    assert not runs(keeper.postmaster)


async def test_a_client_that_is_connected_does_not_hold_up_the_stop(start: START):
    keeper = start()
    connection = await asyncpg.connect(keeper.dsn)
    assert keeper.stop() == 0
    connection.terminate()


async def test_a_database_whose_keeper_was_killed_is_taken_over_and_stopped(start: START):
    killed = start()
    await killed.run("CREATE TABLE jobs AS SELECT 7 AS id")
    killed.process.kill()
    killed.process.wait()
    assert runs(killed.postmaster)
    successor = start()
    assert successor.postmaster == killed.postmaster
    assert await successor.run("SELECT id FROM jobs") == 7
    assert successor.stop() == 0
    assert not runs(killed.postmaster)


async def test_a_keeper_whose_database_died_ends_and_the_next_one_recovers_the_data(start: START):
    keeper = start()
    await keeper.run("CREATE TABLE jobs AS SELECT 7 AS id")
    os.kill(keeper.postmaster, signal.SIGKILL)
    assert keeper.process.wait(60) == 1
    assert await start().run("SELECT id FROM jobs") == 7


async def test_a_process_that_got_the_dead_databases_number_is_left_alone(start: START):
    keeper = start()
    data = Path(keeper.dsn.partition("host=")[2])
    keeper.stop()
    bystander = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import sys; sys.stdin.read()", stdin=subprocess.PIPE
    )
    (data / "postmaster.pid").write_text(f"{bystander.pid}\n{data}\n1700000000\n5432\n{data}\n\n0 0\nready\n")
    successor = start()
    assert await successor.run("SELECT 7") == 7
    assert successor.stop() == 0
    assert bystander.returncode is None
    await bystander.communicate(b"")
    assert bystander.returncode == 0
