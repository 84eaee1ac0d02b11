"""All ten job types, each with real pipelines: over gRPC by the example that its readers run, and over REST."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page

from integration.media import assert_is_the_promised_clip, fetch, frames_of, picture_of
from integration.stack import Stack
from integration.waiting import until
from support.browser import PLAY

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "all_types.py"
PATIENCE_S = 600

STILLS = {
    "sdxl_image_fast": (1024, 1024),
    "sdxl_image_high": (1024, 1024),
    "image_fast": (832, 480),
    "image_high": (832, 480),
    "image7b_fast_enhanced": (832, 480),
    "image7b_high_enhanced": (832, 480),
}
CLIPS = ["video_fast", "video_high", "video7b_fast_enhanced", "video7b_high_enhanced"]


@pytest.fixture(scope="module")
def made(stack: Stack) -> dict[str, str]:
    """The URL of each type's output, as the example printed it."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env=stack.env("all"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {state for _, state, *_ in lines} == {"JOB_STATE_COMPLETED"}, done.stdout
    return {name: url for name, _, url in lines}


def test_there_are_ten(made: dict[str, str]):
    assert sorted(made) == sorted([*STILLS, *CLIPS])


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("job_type", STILLS)
def test_a_still_is_one_png_of_its_size(made: dict[str, str], job_type: str):
    picture = picture_of(fetch(made[job_type]))
    assert picture.shape == (*STILLS[job_type], 3)
    assert picture.std() > 1


@pytest.mark.parametrize("job_type", CLIPS)
def test_a_clip_is_what_is_promised_and_moves(made: dict[str, str], job_type: str):
    file = fetch(made[job_type])
    assert_is_the_promised_clip(file)
    frames = frames_of(file)
    assert frames.std() > 1
    assert (frames[0] != frames[-1]).any()


def test_a_clip_plays_in_a_browser_from_its_signed_url(made: dict[str, str], page: Page):
    page.set_content(f"<video src='{made['video7b_fast_enhanced']}' preload=auto muted></video>")
    assert page.locator("video").evaluate(PLAY) == [5.0, 480, 832]


@pytest.mark.parametrize("job_type", [*STILLS, *CLIPS])
def test_an_output_lies_in_its_types_bucket(made: dict[str, str], job_type: str):
    bucket = job_type.replace("_", "-")
    assert urlsplit(made[job_type]).path.startswith(f"/objects/{bucket}/all/")


def test_a_clip_over_rest_is_repeated_with_its_seed(stack: Stack):
    def make(seed: int | None) -> dict:
        with stack.http("repeater") as http:
            body = {
                "jobType": "video_fast",
                "metadata": {"prompt": "a walk", **({} if seed is None else {"seed": seed})},
            }
            queued = http.post("/api/queue-job", json=body).json()["job"]
            path = f"/api/jobs/{queued['id']}"
            return until(lambda: job if (job := http.get(path).json())["status"] == "completed" else None, PATIENCE_S)

    first = make(None)
    again = make(first["metadata"]["seed"])
    assert fetch(again["assets"][0]) == fetch(first["assets"][0])
    assert first["metadata"]["duration_seconds"] == 5.0
    assert first["metadata"]["frames"] == 83


def test_an_enhanced_job_shows_both_stages_and_both_prompts(stack: Stack):
    with stack.http("enhanced") as http:
        body = {"jobType": "image7b_fast_enhanced", "metadata": {"prompt": "woman walking", "seed": 5}}
        queued = http.post("/api/queue-job", json=body).json()
        assert queued["modelVariant"] == "wan_2_1_1_3b_qwen_7b"
        path = f"/api/jobs/{queued['job']['id']}"
        with http.stream("GET", f"{path}/events", timeout=PATIENCE_S) as response:
            events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
        job = http.get(path).json()
    stages = [event["stage"] for event in events]
    assert list(dict.fromkeys(stages)) == ["queued", "enhancing", "rendering", "uploading", None]
    assert job["metadata"]["original_prompt"] == "woman walking" == job["metadata"]["prompt"]
    enhanced = job["metadata"]["enhanced_prompt"]
    assert len(enhanced) > len("woman walking")
    # In Chinese, as no other language was set.
    assert any("\u4e00" <= letter <= "\u9fff" for letter in enhanced)
    assert "enhanced_prompt" not in queued["job"]["metadata"]
