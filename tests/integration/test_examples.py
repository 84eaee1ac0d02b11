"""The examples, run as their readers run them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import grpc
import httpx
from PIL import Image

from integration.media import assert_is_the_promised_clip, drawing
from integration.servers import engine_server
from integration.stack import Stack, environment, running_stack
from integration.waiting import free_ports, until
from ourvidz import AdminClient, DeliveryState
from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz.local.engine_servers import EngineServer
from ourvidz.local.folder import DataFolder
from ourvidz.local.secrets import Secrets, user_token

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE_S = 120


def run(example: str, folder: Path, env: Mapping[str, str], *arguments: str) -> list[str]:
    """Run an example in `folder`, and return the lines that it printed."""
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def listens(port: int) -> bool:
    """Whether a server takes connections on loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_grpc_client_shows_progress_and_prints_where_the_picture_is(stack: Stack, tmp_path: Path):
    *progress, result = run("grpc_client.py", tmp_path, stack.env("reader"))
    assert (progress[0], progress[-1]) == ("0 %", "100 %")
    assert len(set(progress)) > 3
    state, url = result.split()
    assert state == "JOB_STATE_COMPLETED"
    assert httpx.get(url, trust_env=False).headers["content-type"] == "image/png"


def test_the_polling_client_saves_three_pictures(stack: Stack, tmp_path: Path):
    printed = run("poll_rest.py", tmp_path, stack.env("reader"))
    assert printed[-3:] == ["0.png", "1.png", "2.png"]
    pictures = [(tmp_path / name).read_bytes() for name in printed[-3:]]
    assert [Image.open(BytesIO(picture)).size for picture in pictures] == [(1024, 1024)] * 3
    assert len(set(pictures)) == 3


def test_three_pictures_are_made_and_saved_at_once(stack: Stack, tmp_path: Path):
    printed = run("async_client.py", tmp_path, stack.env("reader"))
    for hour in ("dawn", "noon", "dusk"):
        assert [line for line in printed if line.startswith(hour)][-1] == f"{hour} 100 %"
        with Image.open(tmp_path / f"{hour}.png") as picture:
            assert picture.size == (1024, 1024)


def test_a_program_is_tested_without_a_service(tmp_path: Path):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(EXAMPLES / "own_tests.py")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_webhooks_of_a_local_stack_are_received_and_checked(model_cache: Path, tmp_path: Path):
    (port,) = free_ports(1)
    with running_stack(
        tmp_path, model_cache, only=[EngineServer.SDXL], OURVIDZ_WEBHOOK_URL=f"http://127.0.0.1:{port}/hooks"
    ) as stack:
        secret = subprocess.run(
            [sys.executable, "-m", "ourvidz.cli", "webhooks", "secret", f"--data-dir={stack.data_dir}"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        receiver = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "receive_webhooks.py"), str(port)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(SECRET=secret),
        )  # fmt: skip
        with receiver, stack.client("reader") as client:
            try:
                until(lambda: listens(port))
                assert httpx.post(f"http://127.0.0.1:{port}", content=b"{}", trust_env=False).status_code == 401
                job = client.generate("sdxl_image_fast", "a lighthouse at dawn").result()
                delivery_id, job_id, status, url = receiver.stdout.readline().split()
            finally:
                receiver.terminate()
        assert (job_id, status) == (job.id, "completed")
        assert httpx.get(url, trust_env=False).headers["content-type"] == "image/png"
        operator = user_token(Secrets.read(DataFolder(stack.data_dir)), "ops", hours=1, operator=True)
        with AdminClient(stack.grpc_address, operator) as admin:
            # It is received a moment before that is recorded.
            (delivery,) = until(lambda: admin.list_deliveries(state=DeliveryState.DELIVERED).items)
        assert (delivery.id, delivery.job_id, delivery.attempt_count) == (delivery_id, job.id, 1)


def test_a_clip_is_rendered_without_a_gateway(model_cache: Path, tmp_path: Path):
    (tmp_path / "start.png").write_bytes(drawing((30, 60, 200)))
    storage = {"OURVIDZ_STORAGE_KIND": "local", "OURVIDZ_STORAGE_PATH": str(tmp_path / "objects")}
    with engine_server(tmp_path, model_cache, EngineServer.WAN, OURVIDZ_SERVICE_TOKEN="", **storage) as address:
        printed = run("render_directly.py", tmp_path, environment(RENDERER=address), "start.png")
    assert printed[0] == "accepted "
    assert [line for line in printed if line.startswith("step")] == [f"step {step}" for step in range(1, 26)]
    place, mime_type, size, *_, seed = printed[-1].split()
    clip = (tmp_path / "objects" / place).read_bytes()
    assert (mime_type, int(size), seed) == ("video/mp4", len(clip), "2026")
    assert_is_the_promised_clip(clip)


def test_pictures_are_rendered_without_a_gateway(model_cache: Path, tmp_path: Path):
    storage = {"OURVIDZ_STORAGE_KIND": "local", "OURVIDZ_STORAGE_PATH": str(tmp_path / "objects")}
    sampling = render_pb2.Sampling(prompt="a lighthouse", step_count=4, guidance_scale=5, seed=1)
    request = render_pb2.RenderRequest(
        render_id="direct/1",
        output=render_pb2.OutputLocation(bucket="sdxl-image-fast", prefix="direct/1"),
        images=render_pb2.ImageBatch(sampling=sampling, width_px=1024, height_px=1024, image_count=1),
    )
    with (
        engine_server(tmp_path, model_cache, OURVIDZ_SERVICE_TOKEN="", **storage) as address,
        grpc.insecure_channel(address) as channel,
    ):
        *_, last = render_pb2_grpc.RenderServiceStub(channel).Render(request)
    [output] = last.finished.outputs
    picture = (tmp_path / "objects" / output.bucket / output.key).read_bytes()
    assert Image.open(BytesIO(picture)).size == (1024, 1024)


def test_a_prompt_is_enhanced_without_a_gateway(model_cache: Path, tmp_path: Path):
    with engine_server(tmp_path, model_cache, EngineServer.ENHANCER, OURVIDZ_SERVICE_TOKEN="") as address:
        *text, told = run("enhance_directly.py", tmp_path, environment(ENHANCER=address), "woman", "walking")
    assert len("".join(text)) > len("woman walking")
    assert told.endswith("tokens by miniature")
