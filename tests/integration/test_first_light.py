"""The main job through `curl` alone: token, POST, poll, listen, download."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image

from integration.curl import Answer, EventStream, curl, download, post
from integration.stack import Stack
from integration.waiting import until

PROMPT = "a lighthouse at dawn"
SEED = 12345
STEPS = 20
RENDER_PATIENCE_S = 240


@dataclass(frozen=True)
class Made:
    """A job that was followed from its POST to its end."""

    reply: dict[str, Any]
    """What the POST was answered."""
    polls: list[dict[str, Any]]
    """The job as each look at it found it, to the last."""
    events: list[dict[str, Any]]
    """What the event stream sent."""
    files: list[Path]


class User:
    """Somebody with a token and curl."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack = stack
        token = [sys.executable, "-m", "ourvidz.cli", "token", name, f"--data-dir={stack.data_dir}"]
        self.token = subprocess.run(token, capture_output=True, text=True, check=True).stdout.strip()

    def queue(self, body: dict[str, Any], **options: str) -> dict[str, Any]:
        answer = post(f"{self.stack.url}/api/queue-job", body, token=self.token, **options)
        assert answer.status == 200, answer.body
        return answer.json()

    def get(self, path: str) -> Answer:
        return curl(f"{self.stack.url}{path}", token=self.token)

    def events(self, job_id: str, *, after: int | None = None) -> EventStream:
        return EventStream(f"{self.stack.url}/api/jobs/{job_id}/events", token=self.token, after=after)

    def poll(self, job_id: str) -> list[dict[str, Any]]:
        """Look at the job until it has ended."""
        seen: list[dict[str, Any]] = []

        def ended() -> bool:
            seen.append(self.get(f"/api/jobs/{job_id}").json())
            return seen[-1]["status"] not in ("queued", "processing")

        until(ended, RENDER_PATIENCE_S)
        return seen

    def make(self, body: dict[str, Any], folder: Path, **options: str) -> Made:
        """Queue a job, follow it in both ways at once, and download what it made."""
        reply = self.queue(body, **options)
        job_id = reply["job"]["id"]
        with ThreadPoolExecutor(1) as pool:
            listening = pool.submit(list, self.events(job_id))
            polls = self.poll(job_id)
            events = listening.result(RENDER_PATIENCE_S)
        assert polls[-1]["status"] == "completed", polls[-1]
        folder.mkdir()
        files = [download(url, folder / f"{index}.png") for index, url in enumerate(polls[-1]["assets"])]
        return Made(reply, polls, events, files)


@pytest.fixture(scope="module")
def user(stack: Stack) -> User:
    return User(stack, "dawn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def made(user: User, folder: Path) -> Made:
    """The reference's reproducible job. Like `fetch` with a string, it names no JSON content type."""
    body = {"jobType": "sdxl_image_fast", "metadata": {"prompt": PROMPT, "num_images": 3, "seed": SEED}}
    return user.make(body, folder / "first", content_type="text/plain;charset=UTF-8")


def test_the_reply_is_the_references_field_by_field(made: Made):
    reply = dict(made.reply)
    job = dict(reply.pop("job"))
    assert type(reply.pop("queueLength")) is int
    assert reply == {
        "success": True,
        "message": "sdxl_image_fast job queued.",
        "modelVariant": "sdxl",
        "isSDXL": True,
        "negativePromptSupported": True,
        "referenceImageSupported": True,
        "flexibleQuantitiesSupported": True,
        "seedControlSupported": True,
    }
    assert str(UUID(job.pop("id"))) == made.polls[-1]["id"]
    assert datetime.fromisoformat(job.pop("created_at")).tzinfo
    assert job == {
        "user_id": "dawn",
        "job_type": "sdxl_image_fast",
        "status": "queued",
        "metadata": {"prompt": PROMPT, "num_images": 3, "seed": SEED},
    }


def test_polling_shows_progress_that_only_grows_to_100(made: Made):
    progress = [poll["progress"] for poll in made.polls]
    assert progress == sorted(progress)
    assert len(set(progress)) > 3
    assert progress[-1] == 100
    assert all(poll["progress"] < 100 for poll in made.polls if poll["status"] != "completed")


def test_the_event_stream_shows_every_state_and_step_once_and_in_order(made: Made):
    assert [event["id"] for event in made.events] == [str(number + 1) for number in range(len(made.events))]
    steps = [(event["image_index"], event["step"]) for event in made.events if event["event"] == "step"]
    assert steps == [(image, step) for image in range(3) for step in range(1, STEPS + 1)]
    states = [(event["status"], event["stage"]) for event in made.events if event["event"] == "state"]
    assert states == [
        ("queued", "queued"),
        ("processing", "rendering"),
        ("processing", "uploading"),
        ("completed", None),
    ]
    progress = [event["progress"] for event in made.events]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0, 100)


def test_the_pictures_are_three_different_pngs_that_say_how_they_were_made(made: Made):
    assert len({file.read_bytes() for file in made.files}) == 3
    for index, file in enumerate(made.files):
        with Image.open(file) as picture:
            assert (picture.format, picture.size, picture.mode) == ("PNG", (1024, 1024), "RGB")
            low, high = picture.convert("L").getextrema()
            assert high > low
            prompt, settings = picture.text["parameters"].splitlines()
        assert prompt == PROMPT
        assert settings.startswith(f"Steps: {STEPS}, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: {SEED + index}, ")
        assert "Size: 1024x1024" in settings


def test_the_result_names_the_seed_and_the_model(made: Made):
    metadata = made.polls[-1]["metadata"]
    assert (metadata["seed"], metadata["model"]) == (SEED, "miniature")


def test_the_same_seed_gives_the_same_bytes_and_a_broken_stream_resumes_without_a_gap(
    user: User, made: Made, folder: Path
):
    reply = user.queue(
        {"jobType": "sdxl_image_fast", "metadata": {"prompt": PROMPT}, "config": {"num_images": 3, "seed": SEED}}
    )
    job_id = reply["job"]["id"]
    stream, seen = user.events(job_id), []
    for event in stream:
        seen.append(event)
        if len(seen) == 10:
            stream.hang_up()
            break
    seen += user.events(job_id, after=int(seen[-1]["id"]))
    assert [event["id"] for event in seen] == [event["id"] for event in made.events]
    again = [
        download(url, folder / f"again-{index}.png").read_bytes()
        for index, url in enumerate(user.poll(job_id)[-1]["assets"])
    ]
    assert again == [file.read_bytes() for file in made.files]


def test_one_picture_alone_with_its_own_seed_equals_the_one_of_the_batch(user: User, made: Made, folder: Path):
    body = {"jobType": "sdxl_image_fast", "metadata": {"prompt": PROMPT, "seed": SEED + 1}}
    alone = user.make(body, folder / "alone")
    assert [file.read_bytes() for file in alone.files] == [made.files[1].read_bytes()]


def test_a_job_that_has_ended_has_nothing_more_to_stream(user: User, made: Made):
    last = made.events[-1]["id"]
    path = f"{user.stack.url}/api/jobs/{made.reply['job']['id']}/events"
    assert curl(path, "--header", f"Last-Event-ID: {last}", token=user.token).status == 204


def test_the_references_examples_work_as_printed_while_the_queue_shows_them(user: User, folder: Path):
    six = user.queue(
        {
            "jobType": "sdxl_image_high",
            "metadata": {
                "prompt": "beautiful woman in garden",
                "credits": 2,
                "num_images": 6,
                "seed": 67890,
                "negative_prompt": "blurry, low quality, watermark, text, logo",
            },
        }
    )
    again = user.queue(
        {
            "jobType": "sdxl_image_high",
            "metadata": {"prompt": "same character in different pose", "num_images": 1, "seed": 67890},
        }
    )
    pose = user.queue(
        {
            "jobType": "sdxl_image_fast",
            "metadata": {"prompt": "a sailor, standing pose", "num_images": 1, "seed": 67890},
        }
    )

    def two_wait() -> dict[str, Any] | None:
        status = user.get("/api/queue-status").json()
        return status if (status["queueDepth"], status["queues"]["sdxl_queue"]["running"]) == (2, 1) else None

    status = until(two_wait, 20)
    assert set(status) == {"queueDepth", "queues"}
    assert set(status["queues"]) == {"sdxl_queue", "wan_queue", "enhancer_queue"}
    sdxl = status["queues"]["sdxl_queue"]
    assert (sdxl["depth"], sdxl["renderers"]) == (2, 1)
    assert sdxl["oldestSeconds"] >= 0
    waiting = user.get(f"/api/jobs/{pose['job']['id']}").json()
    assert (waiting["status"], waiting["stage"], waiting["queue_position"]) == ("queued", "queued", 1)

    for reply, count, cost in ((six, 6, 2), (again, 1, 1), (pose, 1, 1)):
        job = user.poll(reply["job"]["id"])[-1]
        assert (job["status"], len(job["assets"]), job["credits"]) == ("completed", count, cost)
        assert job["metadata"]["seed"] == 67890
    with Image.open(download(user.poll(six["job"]["id"])[-1]["assets"][5], folder / "sixth.png")) as sixth:
        assert "Negative prompt: blurry, low quality, watermark, text, logo" in sixth.text["parameters"]
        assert "Steps: 40, " in sixth.text["parameters"]
        assert "CFG scale: 7.5, Seed: 67895, " in sixth.text["parameters"]


@pytest.mark.parametrize("path", ["", "/events", "/cancel"])
def test_another_users_job_can_not_be_found(stack: Stack, made: Made, path: str):
    stranger = stack.token("stranger")
    method = ["--request", "POST"] if path == "/cancel" else []
    found = curl(f"{stack.url}/api/jobs/{made.reply['job']['id']}{path}", *method, token=stranger)
    missing = curl(f"{stack.url}/api/jobs/{UUID(int=0)}{path}", *method, token=stranger)
    named = made.reply["job"]["id"].encode()
    assert (found.status, found.body.replace(named, b"")) == (
        missing.status,
        missing.body.replace(str(UUID(int=0)).encode(), b""),
    )
    assert found.status == 404
    assert found.json()["success"] is False


def test_another_users_jobs_are_not_listed(stack: Stack, made: Made):
    assert curl(f"{stack.url}/api/jobs", token=stack.token("stranger")).json()["jobs"] == []


def test_a_signed_url_serves_ranges(made: Made):
    url = made.polls[-1]["assets"][0]
    part = curl(url, "--range", "8-1031")
    assert (part.status, part.body) == (206, made.files[0].read_bytes()[8:1032])


def test_a_signed_url_opens_nothing_with_a_changed_token_or_path(made: Made):
    first, second, _ = made.polls[-1]["assets"]
    start, _, signature = first.rpartition(".")
    changed = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
    assert curl(f"{start}.{changed}").status == 403
    assert curl(f"{second.partition('?')[0]}?{first.partition('?')[2]}").status == 403
    assert curl(first.partition("?")[0]).status == 403
