"""A renderer as a process of its own: its health, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ourvidz.api.render.v1 import render_pb2_grpc
from ourvidz_serving.rendering.renderer import SERVICE, RenderSettings
from ourvidz_serving.settings import load
from support.renderer import FACTORY, Gate, ask

SERVING = health_pb2.HealthCheckResponse.SERVING

PROGRAM = f"""
import sys
from ourvidz_serving.engines.process import EngineProcess
from ourvidz_serving.rendering.renderer import serve_renderer
from ourvidz_serving.server import run
from ourvidz_serving.settings import ServerSettings, load

engine = EngineProcess({FACTORY!r}, {{"gate": sys.argv[1]}})
run(lambda: serve_renderer(load(ServerSettings), engine, kind="sdxl", buckets=["pictures"]))
assert "support.fake_engine" not in sys.modules
assert "torch" not in sys.modules
"""


def test_every_bucket_of_pictures_may_be_referred_to_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"reference-images", "sdxl-image-high", "image-fast"} <= set(load(RenderSettings).reference_buckets)
    monkeypatch.setenv("OURVIDZ_RENDER_REFERENCE_BUCKETS", "mine, yours,")
    assert load(RenderSettings).reference_buckets == ("mine", "yours")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_renderer_serves_once_its_model_is_loaded_and_finishes_its_render_when_told_to_stop(
    tmp_path: Path,
) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OURVIDZ_GRPC_PORT": str(port),
        "OURVIDZ_STORAGE_KIND": "local",
        "OURVIDZ_STORAGE_PATH": str(tmp_path / "objects"),
    }
    gate_path = tmp_path / "gate"
    async with Gate.at(gate_path) as gate, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(gate_path), env=environment, cwd=tmp_path
        )
        try:
            check = health_pb2.HealthCheckRequest(service=SERVICE)
            health = health_pb2_grpc.HealthStub(channel).Watch(check, wait_for_ready=True)
            async with asyncio.timeout(60):
                while (await health.read()).status != SERVING:
                    pass
            call = render_pb2_grpc.RenderServiceStub(channel).Render(ask("hold:0:1"))
            await gate.held()
            process.send_signal(signal.SIGTERM)
            assert (await health.read()).status != SERVING
            gate.release()
            events = [event async for event in call]
            assert events[-1].HasField("finished")
            assert await process.wait() == 0
            assert (tmp_path / "objects" / "pictures" / "user/job/1/0.png").is_file()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
