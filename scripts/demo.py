"""Starts the whole system on this machine, renders three images, shows where they are, and stops it again."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

DATA = Path(".data/demo")
START_TIMEOUT_S = 600
STOP_TIMEOUT_S = 90


def main() -> int:
    """Return the exit status of `ourvidz generate`, or 1 if the system can't be started."""
    arguments = _arguments()
    rest_port, grpc_port = _free_ports(2)
    url = f"http://127.0.0.1:{rest_port}"
    stack = subprocess.Popen(
        [*_ourvidz("up"), f"--data-dir={DATA}", f"--rest-port={rest_port}", f"--grpc-port={grpc_port}"],
        stdout=subprocess.DEVNULL,
        # Ctrl-C reaches this program alone, which then stops the stack.
        start_new_session=True,
    )
    try:
        print(f"Starting PostgreSQL, the SDXL renderer and the gateway (logs in {DATA}/logs) …", flush=True)
        if not _wait_until_ready(url, stack):
            return 1
        token = subprocess.run(
            [*_ourvidz("token"), "demo", f"--data-dir={DATA}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        generate = [
            *_ourvidz("generate"),
            arguments.prompt,
            "--type=sdxl_image_fast",
            "--count=3",
            f"--seed={arguments.seed}",
            f"--out={arguments.out}",
        ]
        client = {"OURVIDZ_TOKEN": token, "OURVIDZ_URL": url, "OURVIDZ_GRPC": f"127.0.0.1:{grpc_port}"}
        return subprocess.run(generate, env={**os.environ, **client}, check=False).returncode
    finally:
        stack.send_signal(signal.SIGINT)
        stack.wait(STOP_TIMEOUT_S)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="out", help="folder for the images")
    parser.add_argument("--seed", type=int, default=2026, help="the same seed gives the same images")
    parser.add_argument("--prompt", default="a lighthouse at dawn")
    return parser.parse_args()


def _ourvidz(command: str) -> list[str]:
    return [sys.executable, "-m", "ourvidz.cli", command]


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now, so that the demo runs beside whatever else does."""
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


if __name__ == "__main__":
    sys.exit(main())
