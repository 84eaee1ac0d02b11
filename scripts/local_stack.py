"""A local stack for as long as a script needs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

START_TIMEOUT_S = 900
"""The first start builds the miniature models."""
STOP_TIMEOUT_S = 90


@dataclass(frozen=True, slots=True)
class LocalStack:
    """Where a running stack is, and a token for it."""

    url: str
    grpc_address: str
    token: str

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which clients find it."""
        own = {"OURVIDZ_TOKEN": self.token, "OURVIDZ_URL": self.url, "OURVIDZ_GRPC": self.grpc_address}
        return {**os.environ, **own}


@contextmanager
def running_stack(data: Path, user: str) -> Iterator[LocalStack]:
    """Run `ourvidz up` on a data folder and give a token of that user; ends the program if the stack can't be started."""
    # Without this, a SIGTERM would end the script at once and leave the stack behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    rest_port, grpc_port = _free_ports(2)
    url = f"http://127.0.0.1:{rest_port}"
    up = subprocess.Popen(
        [*ourvidz("up"), f"--data-dir={data}", f"--rest-port={rest_port}", f"--grpc-port={grpc_port}"],
        stdout=subprocess.DEVNULL,
        # Ctrl-C reaches the script alone, which then stops the stack.
        start_new_session=True,
    )
    try:
        print(f"Starting PostgreSQL, the renderers, the enhancer and the gateway (logs in {data}/logs) …", flush=True)
        if not _wait_until_ready(url, up):
            sys.exit(1)
        token = subprocess.run(
            [*ourvidz("token"), user, f"--data-dir={data}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        yield LocalStack(url, f"127.0.0.1:{grpc_port}", token)
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(STOP_TIMEOUT_S)


def ourvidz(command: str) -> list[str]:
    """Return the start of a command line of ours."""
    return [sys.executable, "-m", "ourvidz.cli", command]


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now, so that the script runs beside whatever else does."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _wait_until_ready(url: str, stack: subprocess.Popen[bytes]) -> bool:
    """Wait until the gateway answers; False if the stack ended instead, which has said why."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while stack.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).is_success:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    return False
