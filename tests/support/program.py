"""A server with a model as a program of its own, and what it says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

MODEL_LIBRARIES = {"torch", "diffusers", "transformers", "ourvidz_miniature"}
"""What the server itself must not import."""


def environment(module: str, cache: Path, **more: str) -> dict[str, str]:
    """Return variables for a program on a CPU; `more` are its own, without their prefix."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("OURVIDZ_")}
    own = {"GRPC_PORT": "0", "METRICS_PORT": "0", "MODEL_CACHE": str(cache), "DEVICE": "cpu", "THREADS": "1", **more}
    return {**others, **{f"{module.upper()}_{name}": value for name, value in own.items()}}


def imported_by(module: str) -> set[str]:
    """Return the top-level packages that a program's own process imports."""
    program = f"import {module}.__main__, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@dataclass
class Program:
    """A program that runs."""

    channel: grpc.aio.Channel
    log: list[dict[str, object]] = field(default_factory=list)
    """The lines that it has logged, as far as they were read; all of them once it has ended."""


@asynccontextmanager
async def running_program(module: str, service: str, variables: dict[str, str]) -> AsyncIterator[Program]:
    """Run `python -m MODULE` until its service is healthy; at the end it must stop well when it is told to."""
    server = await asyncio.create_subprocess_exec(sys.executable, "-m", module, env=variables, stderr=subprocess.PIPE)
    assert server.stderr is not None
    log: list[dict[str, object]] = []

    async def read_log_until(event: str) -> dict[str, object]:
        while not log or log[-1]["event"] != event:
            line = (await server.stderr.readline()).decode()
            # Each line is one of ours: what the model's libraries have to say does not get here. Only gRPC's core, which
            # writes past all logging, notes that the server forks in order to start its engine.
            if "fork_posix.cc" not in line and line != "\n":
                log.append(json.loads(line))
        return log[-1]

    try:
        address = str((await read_log_until("server started"))["grpc"])
        async with grpc.aio.insecure_channel(address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))
            async for health in watch:
                if health.status == health_pb2.HealthCheckResponse.SERVING:
                    break
            watch.cancel()
            yield Program(channel, log)
        server.send_signal(signal.SIGTERM)
        await read_log_until("server stopped")
        assert await server.wait() == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
