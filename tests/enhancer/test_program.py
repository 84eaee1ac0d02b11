"""The program: `python -m ourvidz_enhancer`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ourvidz.api.enhance.v1 import enhance_pb2, enhance_pb2_grpc
from ourvidz_enhancer.enhancer import SERVICE
from support.enhancer import read_all, task, write

MODEL_LIBRARIES = {"torch", "diffusers", "transformers", "ourvidz_miniature"}

ASKED = enhance_pb2.EnhanceRequest(prompt="woman walking", medium=enhance_pb2.MEDIUM_VIDEO)


def test_the_server_itself_never_imports_what_its_engine_imports() -> None:
    program = "import ourvidz_enhancer.__main__, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"ourvidz_enhancer", "ourvidz_serving"} <= imported
    assert not imported & MODEL_LIBRARIES


def environment(cache: Path, **more: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("OURVIDZ_")}
    own = {"GRPC_PORT": "0", "METRICS_PORT": "0", "MODEL_CACHE": str(cache), "DEVICE": "cpu", "THREADS": "1", **more}
    return {**others, **{f"OURVIDZ_ENHANCER_{name}": value for name, value in own.items()}}


async def test_the_program_serves_logs_lines_of_its_own_and_ends_when_told(qwen2_cache, engine) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ourvidz_enhancer", env=environment(qwen2_cache), stderr=subprocess.PIPE
    )
    assert server.stderr is not None
    log: list[dict[str, object]] = []

    async def read_log_until(event: str) -> dict[str, object]:
        while not log or log[-1]["event"] != event:
            line = (await server.stderr.readline()).decode()
            # gRPC's core, which writes past all logging, notes that the server forks in order to start its engine.
            if "fork_posix.cc" not in line and line != "\n":
                log.append(json.loads(line))
        return log[-1]

    try:
        address = str((await read_log_until("server started"))["grpc"])
        async with grpc.aio.insecure_channel(address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            async for health in watch:
                if health.status == health_pb2.HealthCheckResponse.SERVING:
                    break
            watch.cancel()
            responses = await read_all(enhance_pb2_grpc.EnhanceServiceStub(channel).Enhance(ASKED))
        server.send_signal(signal.SIGTERM)
        await read_log_until("server stopped")
        assert await server.wait() == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
    expected = (await asyncio.to_thread(write, engine, task("woman walking")))[0]
    assert responses[-1].finished.text == expected.text
    assert {line["level"] for line in log} == {"info"}
    assert "woman" not in json.dumps(log)


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"INSTRUCTION": "/nowhere/mine.toml"}, "the instruction file /nowhere/mine.toml can't be read"),
        ({"STYLE": "poem"}, "OURVIDZ_ENHANCER_STYLE"),
        ({"GRPC_HOST": "0.0.0.0"}, "without a service token"),
    ],
)
def test_wrong_settings_end_the_start_with_what_is_wrong(qwen2_cache, variables, problem) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ourvidz_enhancer"],
        env=environment(qwen2_cache, **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
