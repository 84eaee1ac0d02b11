"""The program: `python -m ourvidz_enhancer`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from ourvidz.api.enhance.v1 import enhance_pb2, enhance_pb2_grpc
from ourvidz_enhancer.enhancer import SERVICE
from support.enhancer import read_all, task, write
from support.program import MODEL_LIBRARIES, environment, imported_by, running_program

MODULE = "ourvidz_enhancer"

ASKED = enhance_pb2.EnhanceRequest(prompt="woman walking", medium=enhance_pb2.MEDIUM_VIDEO)


def test_the_server_itself_never_imports_what_its_engine_imports() -> None:
    imported = imported_by(MODULE)
    assert {MODULE, "ourvidz_serving"} <= imported
    assert not imported & MODEL_LIBRARIES


async def test_the_program_serves_logs_lines_of_its_own_and_ends_when_told(qwen2_cache, engine) -> None:
    async with running_program(MODULE, SERVICE, environment(MODULE, qwen2_cache)) as program:
        responses = await read_all(enhance_pb2_grpc.EnhanceServiceStub(program.channel).Enhance(ASKED))
    expected = (await asyncio.to_thread(write, engine, task("woman walking")))[0]
    assert responses[-1].finished.text == expected.text
    assert {line["level"] for line in program.log} == {"info"}
    assert "woman" not in json.dumps(program.log)


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
        [sys.executable, "-m", MODULE],
        env=environment(MODULE, qwen2_cache, **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
