"""The examples, run as their readers run them."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image

from integration.stack import Stack

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE_S = 120


def run(example: str, stack: Stack, folder: Path) -> list[str]:
    """Run an example in `folder` as a user of the stack, and return the lines that it printed."""
    command = [sys.executable, str(EXAMPLES / example)]
    done = subprocess.run(
        command, cwd=folder, env=stack.env("reader"), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_grpc_client_shows_progress_and_prints_where_the_picture_is(stack: Stack, tmp_path: Path):
    *progress, result = run("grpc_client.py", stack, tmp_path)
    assert (progress[0], progress[-1]) == ("0 %", "100 %")
    assert len(set(progress)) > 3
    state, url = result.split()
    assert state == "JOB_STATE_COMPLETED"
    assert httpx.get(url, trust_env=False).headers["content-type"] == "image/png"


def test_the_polling_client_saves_three_pictures(stack: Stack, tmp_path: Path):
    printed = run("poll_rest.py", stack, tmp_path)
    assert printed[-3:] == ["0.png", "1.png", "2.png"]
    pictures = [(tmp_path / name).read_bytes() for name in printed[-3:]]
    assert [Image.open(BytesIO(picture)).size for picture in pictures] == [(1024, 1024)] * 3
    assert len(set(pictures)) == 3
