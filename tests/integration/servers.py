"""Servers started one by one, as on machines of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from integration.stack import environment
from integration.waiting import free_ports, until
from ourvidz import Client
from ourvidz.local.engine_servers import EngineServer
from support.fronts import SECRET, token

SERVICE_TOKEN = "a-token-that-servers-show-each-other"
START_PATIENCE_S = 60
STOP_PATIENCE_S = 60


@contextmanager
def running(module: str, folder: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m MODULE`; it must end well when it is told to, unless it was killed."""
    with (folder / f"{module}.log").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", module],
            stdout=log,
            stderr=log,
            env=environment(**{"OURVIDZ_METRICS_PORT": "0", "OURVIDZ_SERVICE_TOKEN": SERVICE_TOKEN, **settings}),
        )
        try:
            yield server
            if server.poll() is None:
                server.terminate()
                assert server.wait(STOP_PATIENCE_S) == 0
        finally:
            server.kill()
            server.wait()


@contextmanager
def engine_server(
    folder: Path, model_cache: Path, kind: EngineServer = EngineServer.SDXL, **settings: str
) -> Iterator[str]:
    """Run a server with a model; yield its address once that is loaded."""
    [port] = free_ports(1)
    own = {"GRPC_PORT": str(port), "METRICS_PORT": "0", "MODEL_CACHE": str(model_cache)}
    named = {f"OURVIDZ_{kind.upper()}_{name}": value for name, value in own.items()}
    with running(f"ourvidz_{kind}", folder, **named, **settings):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check

            def serving() -> bool:
                try:
                    return bool(check(health_pb2.HealthCheckRequest(), timeout=5).status == 1)
                except grpc.RpcError:
                    return False

            until(serving, START_PATIENCE_S)
        yield f"127.0.0.1:{port}"


class Gateway:
    """A gateway process and how to reach it."""

    def __init__(self, process: subprocess.Popen[bytes], rest_port: int, grpc_port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{rest_port}"
        self.address = f"127.0.0.1:{grpc_port}"

    def client(self, user: str) -> Client:
        """A gRPC client of that user."""
        return Client(self.address, token(user), url=self.url)


@contextmanager
def gateway(folder: Path, **settings: str) -> Iterator[Gateway]:
    """Run a gateway; yield it once it answers."""
    rest_port, grpc_port = free_ports(2)
    ports = {"OURVIDZ_REST_PORT": str(rest_port), "OURVIDZ_GRPC_PORT": str(grpc_port)}
    with running(
        "ourvidz_gateway", folder, OURVIDZ_JWT_SECRET=SECRET, OURVIDZ_CREDITS_GRANT="1000", **ports, **settings
    ) as process:
        found = Gateway(process, rest_port, grpc_port)

        def ready() -> bool:
            try:
                return httpx.get(f"{found.url}/readyz", trust_env=False, timeout=5).is_success
            except httpx.TransportError:
                return False

        until(ready, START_PATIENCE_S)
        yield found
