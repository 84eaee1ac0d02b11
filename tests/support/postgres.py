"""The PostgreSQL that tests share: a real one, started once, with a fresh database for each test."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import psutil
import pytest

from ourvidz.local.folder import ROOTS_DATABASES, DataFolder


class Postgres:
    """A server that can make databases. It may be killed or frozen, and comes back under the same DSN."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._keeper: subprocess.Popen[bytes] | None = None
        self.dsn = ""

    def start(self) -> None:
        """Start it, on whatever data there is; blocks until it takes connections."""
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "ourvidz.local.postgres", str(self._folder.path), str(self._folder.roots_databases)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not self._folder.postgres_ready.exists():
            assert self._keeper.poll() is None, "the embedded PostgreSQL did not start"
            assert time.monotonic() < deadline, "the embedded PostgreSQL took longer than a minute to start"
            time.sleep(0.05)
        self.dsn = self._folder.postgres_ready.read_text().splitlines()[1]

    def stop(self) -> None:
        """Stop it in good order, if it runs."""
        if self._keeper:
            assert self._keeper.stdin
            self._keeper.stdin.close()
            self._keeper.wait(timeout=60)
            self._keeper = None

    def kill(self) -> None:
        """End all its processes at once, as a power cut does."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.stop()

    def freeze(self) -> None:
        """Stop the time of all its processes, until `thaw`: connections stay, and nobody answers."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        """Let it go on as if nothing had been."""
        for process in self._processes():
            process.resume()

    def _processes(self) -> list[psutil.Process]:
        pid_file = self._folder.make_postgres() / "postmaster.pid"
        postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
        return [postmaster, *postmaster.children()]

    def execute(self, statement: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self.dsn)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Make an empty database, yield its DSN, and drop it."""
        name = f"test_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield urlunsplit(urlsplit(self.dsn)._replace(path=f"/{name}"))
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a server of one's own until the end of the block, with all its data gone afterwards."""
    # Root's PostgreSQL runs as another user, which must be able to reach the folder.
    root = os.geteuid() == 0
    if root:
        ROOTS_DATABASES.mkdir(parents=True, exist_ok=True)
    databases = Path(tempfile.mkdtemp(prefix="tests-", dir=ROOTS_DATABASES if root else None))
    databases.chmod(0o755)
    data = Path(tempfile.mkdtemp(prefix="ourvidz-tests-"))
    folder = DataFolder(data, databases)
    folder.make()
    postgres = Postgres(folder)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
        shutil.rmtree(data)
        shutil.rmtree(databases, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture
def dsn(postgres: Postgres) -> Iterator[str]:
    """The DSN of an empty database."""
    with postgres.database() as dsn:
        yield dsn
