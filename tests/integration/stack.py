"""`ourvidz up` as its users run it: real servers on a data folder of their own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from integration.waiting import free_ports, until
from ourvidz import Client
from ourvidz.local.engine_servers import EngineServer
from ourvidz.local.folder import DataFolder
from ourvidz.local.secrets import Secrets, user_token

START_PATIENCE_S = 240
STOP_PATIENCE_S = 90


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with these settings, and none that a developer may have exported."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OURVIDZ_")}
    return {**inherited, **settings}


class Stack:
    """One data folder and the `ourvidz up` that runs on it, or does not run just now."""

    def __init__(self, data_dir: Path, only: Sequence[EngineServer] = (), **settings: str) -> None:
        self.data_dir = data_dir
        self._folder = DataFolder(data_dir)
        self._settings = settings
        self._said = data_dir.with_suffix(".up.log")
        rest_port, grpc_port = free_ports(2)
        self.url = f"http://127.0.0.1:{rest_port}"
        self.grpc_address = f"127.0.0.1:{grpc_port}"
        self._options = [f"--data-dir={data_dir}", f"--rest-port={rest_port}", f"--grpc-port={grpc_port}"]
        self._options += [f"--only={server}" for server in only]
        self._up: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it runs."""
        with self._said.open("wb") as said:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "ourvidz.cli", "up", *self._options],
                stdout=said,
                stderr=said,
                env=environment(**self._settings),
                # Ctrl-C is for the test run, which then stops the stack.
                start_new_session=True,
            )
        until(lambda: "Ctrl-C stops everything" in self.said() or self._up.poll() is not None, START_PATIENCE_S)
        assert self._up.poll() is None, self.said()

    def stop(self) -> None:
        """Stop it as Ctrl-C does; it must end well and leave no process behind."""
        assert self._up
        started = self.processes()
        self._up.send_signal(signal.SIGINT)
        assert self._up.wait(STOP_PATIENCE_S) == 0, self.said()
        left = [process for process in started if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        assert left == []
        self._up = None

    def remove(self) -> None:
        """Kill what still runs after a failed test, and delete all data."""
        if self._up:
            processes = self.processes() if self._up.poll() is None else []
            self._up.kill()
            self._up.wait()
            psutil.wait_procs(processes, timeout=STOP_PATIENCE_S)
        database = self.data_dir / "postgres"
        if database.is_symlink():  # root's databases lie elsewhere
            shutil.rmtree(database.readlink(), ignore_errors=True)
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def said(self) -> str:
        """What `up` has printed so far."""
        return self._said.read_text()

    @property
    def objects(self) -> Path:
        """The folder that holds all outputs."""
        return self._folder.objects

    @property
    def dsn(self) -> str:
        """Where the database is."""
        return self._folder.postgres_ready.read_text().split()[1]

    def log(self, server: str) -> str:
        """What a server has logged since the stack started."""
        return self._folder.log(server).read_text()

    def rows(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Ask the stack's database."""

        async def ask() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.dsn)
            try:
                return await connection.fetch(query, *args)
            finally:
                await connection.close()

        return asyncio.run(ask())

    def token(self, user: str) -> str:
        """A token that is good for an hour."""
        return user_token(Secrets.read(self._folder), user, hours=1)

    def env(self, user: str) -> dict[str, str]:
        """The environment in which a user's client finds the stack."""
        return environment(OURVIDZ_GRPC=self.grpc_address, OURVIDZ_URL=self.url, OURVIDZ_TOKEN=self.token(user))

    def client(self, user: str) -> Client:
        """A gRPC client of that user."""
        return Client(self.grpc_address, self.token(user), url=self.url)

    def http(self, user: str) -> httpx.Client:
        """A REST client of that user."""
        headers = {"Authorization": f"Bearer {self.token(user)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def server(self, module: str) -> psutil.Process:
        """The process that runs `python -m MODULE` now."""
        assert self._up
        (found,) = [child for child in psutil.Process(self._up.pid).children() if child.cmdline()[-1] == module]
        return found

    def engine(self, module: str = "ourvidz_sdxl") -> psutil.Process:
        """A server's child, which has the model."""
        (found,) = self.server(module).children()
        return found

    def processes(self) -> list[psutil.Process]:
        """All processes of the stack, `up` and the database included."""
        assert self._up
        up = psutil.Process(self._up.pid)
        found = [up, *up.children(recursive=True)]
        pid_file = self.data_dir / "postgres" / "postmaster.pid"
        if pid_file.exists():
            postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
            found += [postmaster, *postmaster.children(recursive=True)]
        return found


@contextmanager
def running_stack(
    folder: Path, model_cache: Path, *, only: Sequence[EngineServer] = (), **settings: str
) -> Iterator[Stack]:
    """Run a stack on a new data folder; it must end well, and all of it is deleted. `only` names servers with models."""
    caches = {f"OURVIDZ_{server.upper()}_MODEL_CACHE": str(model_cache) for server in EngineServer}
    stack = Stack(folder / "data", only, **caches, **settings)
    try:
        stack.start()
        yield stack
        stack.stop()
    finally:
        stack.remove()
