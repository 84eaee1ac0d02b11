"""Gateways as processes of their own, on the test's database and a renderer of the test's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from support.fronts import SECRET, token

SMALL_CATALOG = """
[job_types.small]
kind = "sdxl"
enhanced = false
model_variant = "painter"
bucket = "pictures"
max_bytes = 100_000
price = 2
deadline_s = 900
image_counts = [1, 3]
supports_reference = false
supports_frames = false

[job_types.small.recipe]
width_px = 64
height_px = 48
step_count = 2
guidance_scale = 7.0
sampler = "euler"
"""
"""One job type that the painting engine makes in no time."""


class GatewayProcess:
    """A gateway that runs, and how to ask it for jobs."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self._url = url

    async def ask(self, prompt: str = "a fox", *, user: str = "alice", key: str | None = None) -> httpx.Response:
        """Ask for a small job."""
        return (await self.ask_at_once(1, prompt, user=user, key=key))[0]

    async def ask_at_once(
        self, count: int, prompt: str = "a fox", *, user: str = "alice", key: str | None = None
    ) -> list[httpx.Response]:
        """Ask for that many small jobs in the same moment."""
        headers = {"authorization": f"Bearer {token(user)}", **({"idempotency-key": key} if key else {})}
        body = {"jobType": "small", "metadata": {"prompt": prompt}}
        async with httpx.AsyncClient(base_url=self._url, headers=headers, trust_env=False, timeout=30) as client:
            return await asyncio.gather(*(client.post("/api/queue-job", json=body) for _ in range(count)))

    async def get(self, path: str, *, user: str = "alice") -> Any:
        """Return what stands at a path."""
        headers = {"authorization": f"Bearer {token(user)}"}
        async with httpx.AsyncClient(base_url=self._url, headers=headers, trust_env=False, timeout=30) as client:
            return (await client.get(path)).raise_for_status().json()

    async def stop(self) -> None:
        """Stop it as an operator does; it must end well."""
        self.process.send_signal(signal.SIGTERM)
        assert await self.process.wait() == 0


@asynccontextmanager
async def gateway_process(dsn: str, folder: Path, *, sdxl: str, **settings: str) -> AsyncIterator[GatewayProcess]:
    """Run `python -m ourvidz_gateway` until its REST API answers; at the end it is killed, if it still runs."""
    catalog = folder / "catalog.toml"
    catalog.write_text(SMALL_CATALOG)
    stated = {
        "GRPC_PORT": "0",
        "REST_PORT": "0",
        "METRICS_PORT": "0",
        "DATABASE_URL": dsn,
        "JWT_SECRET": SECRET,
        "CATALOG": str(catalog),
        "RENDERERS_SDXL": sdxl,
        "CREDITS_GRANT": "1000",
        "LOG_FORMAT": "json",
        "STORAGE_KIND": "local",
        "STORAGE_PATH": str(folder / "objects"),
        "STORAGE_PUBLIC_URL": "http://127.0.0.1:8000",
        "STORAGE_SIGNING_SECRET": "another secret of the tests, for signed URLs",
        **settings,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OURVIDZ_")}
    variables = inherited | {f"OURVIDZ_{name}": value for name, value in stated.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ourvidz_gateway", env=variables, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr
    try:
        url = ""
        while not url:
            line = await process.stderr.readline()
            assert line, "the gateway did not start"
            said = json.loads(line)
            if said["event"] == "rest started":
                url = f"http://{said['address']}"
        # What it goes on to say is read, so that it is never held up by a full pipe.
        reading = asyncio.create_task(process.stderr.read())
        yield GatewayProcess(process, url)
        reading.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
