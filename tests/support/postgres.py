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
import pytest

from ourvidz.local.folder import ROOTS_DATABASES, DataFolder


class Postgres:
    """A running server that can make databases."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

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
    keeper = subprocess.Popen(
        [sys.executable, "-m", "ourvidz.local.postgres", str(data), str(databases)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not folder.postgres_ready.exists():
            assert keeper.poll() is None, "the embedded PostgreSQL did not start"
            assert time.monotonic() < deadline, "the embedded PostgreSQL took longer than a minute to start"
            time.sleep(0.05)
        yield Postgres(folder.postgres_ready.read_text().splitlines()[1])
    finally:
        assert keeper.stdin
        keeper.stdin.close()
        keeper.wait(timeout=60)
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
