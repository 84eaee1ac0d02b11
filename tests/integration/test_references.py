"""Reference pictures through the whole system: uploaded or fetched, checked, and followed by what is rendered."""

from __future__ import annotations

from pathlib import Path

from integration.media import distance, drawing, fetch, frames_of, picture_of, upload
from integration.stack import Stack
from integration.waiting import until

PATIENCE_S = 240
PROMPT = "a lighthouse at dawn"


def rendered(stack: Stack, job_type: str, **metadata: object) -> dict:
    """Make a job over REST and return it once it is completed."""
    with stack.http("follower") as http:
        reply = http.post(
            "/api/queue-job", json={"jobType": job_type, "metadata": {"prompt": PROMPT, "seed": 7, **metadata}}
        )
        assert reply.status_code == 200, reply.text
        path = f"/api/jobs/{reply.json()['job']['id']}"

        def ended() -> dict | None:
            job = http.get(path).json()
            return job if job["status"] not in ("queued", "processing") else None

        job = until(ended, PATIENCE_S)
    assert job["status"] == "completed", job
    return job


def test_an_image_is_nearer_to_its_reference_the_stronger_it_is(stack: Stack):
    reference = drawing((30, 60, 160), (1024, 1024))
    url = upload(stack, "follower", reference)
    distances = []
    for strength in (0.1, 0.9):
        job = rendered(
            stack, "sdxl_image_fast", reference_image_url=url, reference_strength=strength, reference_type="composition"
        )
        assert job["metadata"]["reference_engine"] == "img2img"
        assert job["warnings"] == []
        distances.append(distance(picture_of(fetch(job["assets"][0])), picture_of(reference)))
    assert distances[0] > distances[1]


def test_a_clip_starts_and_ends_with_its_frames(stack: Stack):
    start, end = drawing((160, 40, 30)), drawing((20, 120, 60))
    frames = {
        "start_reference_image_url": upload(stack, "follower", start),
        "end_reference_image_url": upload(stack, "follower", end),
    }
    given = rendered(stack, "video_fast", reference_strength=1.0, **frames)
    without = rendered(stack, "video_fast")
    assert given["metadata"]["reference_engine"] == "vace"
    assert "reference_engine" not in without["metadata"]
    near, far = (frames_of(fetch(job["assets"][0])) for job in (given, without))
    assert distance(near[0], picture_of(start)) < distance(far[0], picture_of(start))
    assert distance(near[-1], picture_of(end)) < distance(far[-1], picture_of(end))


def test_the_output_of_a_job_is_a_reference_for_the_next_one(stack: Stack):
    first = rendered(stack, "image_fast")
    [url] = first["assets"]
    second = rendered(stack, "sdxl_image_fast", reference_image_url=url, reference_strength=1.0)
    assert second["metadata"]["reference_engine"] == "img2img"
    assert second["warnings"] == []


def test_another_users_upload_is_not_there(stack: Stack):
    url = upload(stack, "somebody-else", drawing((1, 2, 3)))
    with stack.http("follower") as http:
        body = {"jobType": "sdxl_image_fast", "metadata": {"prompt": PROMPT, "reference_image_url": url}}
        reply = http.post("/api/queue-job", json=body)
    assert reply.status_code == 400
    assert reply.json()["referenceImageError"] is True


def test_a_host_that_is_not_allowed_is_refused(stack: Stack):
    with stack.http("follower") as http:
        url = "https://images.example.com/a.png"
        body = {"jobType": "sdxl_image_fast", "metadata": {"prompt": PROMPT, "reference_image_url": url}}
        reply = http.post("/api/queue-job", json=body)
    assert reply.status_code == 400
    assert "OURVIDZ_REFERENCE_HOSTS" in str(reply.json())


def test_the_command_line_uploads_a_file_and_uses_it(stack: Stack, tmp_path: Path):
    reference = drawing((200, 200, 40), (640, 480))
    (tmp_path / "reference.png").write_bytes(reference)
    with stack.client("follower") as client:
        uploaded = client.upload_reference(tmp_path / "reference.png")
        assert (uploaded.width_px, uploaded.height_px, uploaded.mime_type) == (640, 480, "image/png")
        job = client.create_job(
            "sdxl_image_fast", PROMPT, seed=7, reference_image_url=uploaded.url, reference_strength=1.0
        )
        list(client.watch(job.id))
        done = client.get_job(job.id)
    picture = picture_of(fetch(done.assets[0].url))
    # Letterboxed: black above and below what has another aspect.
    assert picture[:80].mean() < picture[300:700].mean()
