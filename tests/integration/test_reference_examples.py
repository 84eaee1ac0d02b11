"""The reference, from its top to its bottom: each request that it prints, against a stack that runs, in its order.

Pictures of references lie on a host of the examples' own there. It is not allowed here, as no host is by default: each
of these requests is sent as printed, to be refused, and then with an upload in the place of that picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from types import NoneType
from typing import Any
from uuid import UUID

import httpx
import pytest

from integration.media import assert_is_the_promised_clip, drawing, fetch, picture_of
from integration.receiver import Receiver
from integration.stack import Stack
from integration.web_app import WebApp

USER = "reader-of-the-reference"
SEED = 424242

JOB_TYPES = [
    "sdxl_image_fast",
    "sdxl_image_high",
    "image_fast",
    "image_high",
    "video_fast",
    "video_high",
    "image7b_fast_enhanced",
    "image7b_high_enhanced",
    "video7b_fast_enhanced",
    "video7b_high_enhanced",
]

# The reply to a request for a job, and a job, as the reference types their fields; `Any` is looked at apart.
QUEUE_JOB_REPLY = {
    "success": bool,
    "job": dict,
    "message": str,
    "queueLength": int,
    "modelVariant": str,
    "isSDXL": bool,
    "negativePromptSupported": bool,
    "referenceImageSupported": bool,
    "flexibleQuantitiesSupported": bool,
    "seedControlSupported": bool,
}
QUEUED_JOB = {"id": str, "user_id": str, "job_type": str, "status": str, "created_at": str, "metadata": dict}
ERROR = {
    "success": bool,
    "error": str,
    "details": (str, NoneType),
    "retryable": (bool, NoneType),
    "suggestedAction": (str, NoneType),
    "referenceImageError": (bool, NoneType),
    "invalidQuantity": (bool, NoneType),
    "invalidSeed": (bool, NoneType),
}
CALLBACK = {
    "job_id": str,
    "status": str,
    "assets": list,
    "error_message": (str, NoneType),
    "metadata": (dict, NoneType),
}

WITH_REFERENCE: dict[str, Any] = {
    "jobType": "sdxl_image_fast",
    "metadata": {
        "prompt": "beautiful woman in garden",
        "credits": 1,
        "reference_image_url": "https://storage.example.com/reference.jpg",
        "reference_strength": 0.7,
        "reference_type": "style",
        "num_images": 3,
        "seed": 12345,
        "negative_prompt": "blurry, low quality, watermark",
    },
}
WITH_FRAMES: dict[str, Any] = {
    "jobType": "video_fast",
    "metadata": {
        "prompt": "woman walking in park",
        "credits": 1,
        "start_reference_image_url": "https://storage.example.com/start.jpg",
        "end_reference_image_url": "https://storage.example.com/end.jpg",
        "reference_strength": 0.6,
    },
}
HIGH_QUALITY: dict[str, Any] = {
    "jobType": "sdxl_image_high",
    "metadata": {
        "prompt": "beautiful woman in garden",
        "credits": 2,
        "num_images": 6,
        "seed": 67890,
        "negative_prompt": "blurry, low quality, watermark, text, logo",
    },
}


def assert_typed(value: dict[str, Any], types: dict[str, Any]) -> None:
    """Check that there are these fields and no others, each of its type; those that may be None may be missing."""
    optional = {name for name, kind in types.items() if isinstance(kind, tuple)}
    assert types.keys() - optional <= value.keys() <= types.keys()
    # JSON's true is a Python int, and no number here.
    wrong = {name: each for name, each in value.items() if type(each) not in as_tuple(types[name])}
    assert wrong == {}


def as_tuple(kind: Any) -> tuple[type, ...]:
    return kind if isinstance(kind, tuple) else (kind,)


@pytest.fixture(scope="module")
def app(stack: Stack) -> Iterator[WebApp]:
    """The page, which shows no header but those that the reference's examples have."""
    with httpx.Client(base_url=stack.url, timeout=60, trust_env=False) as http:
        yield WebApp(http, stack.token(USER))


@pytest.fixture(scope="module")
def reference_url(app: WebApp) -> str:
    return app.upload_reference_image(drawing((30, 60, 160), (640, 480)))


def credits_of(app: WebApp) -> tuple[int, int]:
    reply = app.fetch("/api/credits", headers=app.authorized).json()
    return reply["available"], reply["reserved"]


# --- Creating jobs


@pytest.mark.parametrize("printed", [WITH_REFERENCE, WITH_FRAMES], ids=["reference image", "start and end frame"])
def test_a_picture_on_a_host_that_nobody_allowed_is_refused(app: WebApp, printed: dict[str, Any]):
    before = credits_of(app)
    reply = app.queue(printed)
    assert reply.status_code == 400
    error = reply.json()
    assert_typed(error, ERROR)
    assert error["success"] is False
    assert error["referenceImageError"] is True
    assert "storage.example.com" in error["error"]
    assert credits_of(app) == before


@pytest.fixture(scope="module")
def with_reference(app: WebApp, reference_url: str) -> dict[str, Any]:
    metadata = {**WITH_REFERENCE["metadata"], "reference_image_url": reference_url}
    reply = app.queue({**WITH_REFERENCE, "metadata": metadata})
    assert reply.status_code == 200, reply.text
    result: dict[str, Any] = reply.json()
    return result


def test_the_reply_is_the_printed_one_field_by_field(with_reference: dict[str, Any], reference_url: str):
    assert_typed(with_reference, QUEUE_JOB_REPLY)
    assert_typed(with_reference["job"], QUEUED_JOB)
    job = with_reference["job"]
    assert str(UUID(job["id"])) == job["id"]
    assert datetime.fromisoformat(job["created_at"]).utcoffset() is not None
    assert (job["user_id"], job["job_type"], job["status"]) == (USER, "sdxl_image_fast", "queued")
    assert job["metadata"] == {**WITH_REFERENCE["metadata"], "reference_image_url": reference_url}
    assert with_reference["success"] is True
    assert with_reference["modelVariant"] == "sdxl"
    assert with_reference["isSDXL"] is True
    for flag in ("negativePrompt", "referenceImage", "flexibleQuantities", "seedControl"):
        assert with_reference[f"{flag}Supported"] is True


@pytest.fixture(scope="module")
def with_frames(app: WebApp) -> dict[str, Any]:
    """What the video example makes; it is rendered beside the pictures, on a renderer of its own."""
    frames = {
        "start_reference_image_url": app.upload_reference_image(drawing((160, 40, 30))),
        "end_reference_image_url": app.upload_reference_image(drawing((20, 120, 60))),
    }
    reply = app.queue({**WITH_FRAMES, "metadata": {**WITH_FRAMES["metadata"], **frames}})
    assert reply.status_code == 200, reply.text
    result: dict[str, Any] = reply.json()
    return result


def test_the_reply_to_a_video_says_what_videos_can_do(with_frames: dict[str, Any]):
    assert_typed(with_frames, QUEUE_JOB_REPLY)
    assert with_frames["isSDXL"] is False
    assert with_frames["referenceImageSupported"] is True
    assert with_frames["flexibleQuantitiesSupported"] is False


@pytest.fixture(scope="module")
def high_quality(app: WebApp) -> dict[str, Any]:
    before = credits_of(app)
    reply = app.queue(HIGH_QUALITY)
    assert reply.status_code == 200, reply.text
    after = credits_of(app)
    assert after[0] == before[0] - 2
    result: dict[str, Any] = reply.json()
    return result


@pytest.fixture(scope="module")
def too_late(app: WebApp, high_quality: dict[str, Any]) -> str:
    """A job that is behind the six pictures and would have to start within a second."""
    body = {"jobType": "sdxl_image_high", "metadata": {"prompt": "too late"}, "startTimeoutSeconds": 1}
    job_id: str = app.queue(body).json()["job"]["id"]
    return job_id


# --- Polling and assets


def test_a_batch_ends_as_an_array_of_urls_in_order_with_its_seed(
    app: WebApp, with_reference: dict[str, Any], high_quality: dict[str, Any], too_late: str
):
    for created, count, seed in ((with_reference, 3, 12345), (high_quality, 6, 67890)):
        job = app.monitor_job(created["job"]["id"])
        assert job["status"] == "completed", job
        assert job["job_type"].startswith("sdxl_")
        assert len(job["assets"]) == count
        assert job["metadata"]["seed"] == seed
        assert job["progress"] == 100
        pictures = [fetch(url) for url in job["assets"]]
        assert {picture_of(each).shape for each in pictures} == {(1024, 1024, 3)}
        assert len(set(pictures)) == count
        assert all(each.startswith(b"\x89PNG") for each in pictures)
        assert max(len(each) for each in pictures) <= (5 if count == 3 else 10) * 2**20


def test_a_video_ends_as_one_url_of_a_clip(app: WebApp, with_frames: dict[str, Any]):
    job = app.monitor_job(with_frames["job"]["id"])
    assert job["status"] == "completed", job
    assert "video" in job["job_type"]
    [url] = job["assets"]
    file = fetch(url)
    assert_is_the_promised_clip(file)
    assert len(file) <= 50 * 2**20
    assert job["warnings"] == []


def test_a_failed_job_says_why_and_has_no_assets(app: WebApp, too_late: str):
    job = app.monitor_job(too_late)
    assert job["status"] == "failed"
    assert job["error_message"]
    assert job["assets"] == []


# --- References and seeds


def test_what_is_uploaded_is_used_by_the_url_that_came_back(app: WebApp, reference_url: str):
    result = app.create_job_with_reference("sdxl_image_fast", "a garden", reference_url, 0.5, "composition")
    assert_typed(result, QUEUE_JOB_REPLY)
    assert result["job"]["metadata"]["reference_image_url"] == reference_url
    job = app.monitor_job(result["job"]["id"])
    assert (job["status"], len(job["assets"]), job["warnings"]) == ("completed", 1, [])


def test_the_same_seed_and_prompt_make_the_same_pictures(app: WebApp):
    jobs = [app.create_reproducible_job("a fox in snow", SEED)["job"]["id"] for _ in range(2)]
    first, second = [app.monitor_job(job_id) for job_id in jobs]
    assert [fetch(url) for url in first["assets"]] == [fetch(url) for url in second["assets"]]
    again = app.monitor_job(app.regenerate_with_seed(first["metadata"]["seed"])["job"]["id"])
    assert (again["status"], again["metadata"]["seed"], len(again["assets"])) == ("completed", SEED, 1)


# --- Errors


def error_of(reply: httpx.Response, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()
    assert_typed(error, ERROR)
    assert error["success"] is False
    return error


def sdxl(**metadata: Any) -> dict[str, Any]:
    return {"jobType": "sdxl_image_fast", "metadata": {"prompt": "a fox", **metadata}}


def test_an_unknown_type_is_answered_with_the_ten_there_are(app: WebApp):
    error = error_of(app.queue({"jobType": "sdxl_image_slow", "metadata": {"prompt": "a fox"}}), 400)
    assert ", ".join(JOB_TYPES) in error["error"]


def test_whoever_is_not_signed_in_is_answered_401(app: WebApp):
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        for path in ("/api/queue-job", "/api/upload-reference"):
            error_of(app.fetch(path, method="POST", headers=headers, body="{}"), 401)
        # The reference prints these without a header; here they are no less a user's own.
        for path in (f"/api/jobs/{UUID(int=1)}", "/api/queue-status", "/api/assets", "/api/reference-images"):
            error_of(app.fetch(path, headers=headers), 401)


def test_whoever_has_too_few_credits_is_answered_402_with_what_to_do(app: WebApp):
    error = error_of(app.queue(sdxl(credits=1_000_000)), 402)
    assert error["suggestedAction"]


@pytest.mark.parametrize("bad", [{"reference_type": "mood"}, {"reference_strength": 1.5}, {"reference_image_url": "x"}])
def test_a_bad_reference_is_answered_400_with_its_flag(app: WebApp, bad: dict[str, Any]):
    error = error_of(app.queue(sdxl(**bad)), 400)
    assert error["referenceImageError"] is True
    assert next(iter(bad)) in error["details"]


@pytest.mark.parametrize("count", [0, 2, 4, 5, 7, "3", 1.5])
def test_a_quantity_but_1_3_or_6_is_answered_400_with_its_flag(app: WebApp, count: object):
    for body in (sdxl(num_images=count), {**sdxl(), "config": {"num_images": count}}):
        assert error_of(app.queue(body), 400)["invalidQuantity"] is True


@pytest.mark.parametrize("seed", [1.5, "12345", True, -1])
def test_a_seed_that_is_no_integer_is_answered_400_with_its_flag(app: WebApp, seed: object):
    for body in (sdxl(seed=seed), {**sdxl(), "config": {"seed": seed}}):
        assert error_of(app.queue(body), 400)["invalidSeed"] is True


def test_what_nobody_has_is_answered_404(app: WebApp):
    for method, path in (("GET", "jobs"), ("DELETE", "assets"), ("DELETE", "reference-images")):
        error_of(app.fetch(f"/api/{path}/{UUID(int=1)}", method=method, headers=app.authorized), 404)


# --- Queues


def test_queues_are_looked_at_by_their_depth(app: WebApp):
    status = app.check_queue_health()
    assert type(status["queueDepth"]) is int
    assert {"sdxl_queue", "wan_queue"} <= status["queues"].keys()


# --- The whole flows


def test_upload_create_monitor_and_handle_completion(app: WebApp):
    file = drawing((90, 20, 110), (320, 640))
    job = app.monitor_job(app.upload_and_create_job("sdxl_image_fast", "a harbour", file, 0.6, "character", 99))
    assert job["status"] == "completed", job
    assert (len(job["assets"]), job["metadata"]["seed"]) == (3, 99)


def test_a_video_between_two_pictures_is_accepted_as_printed(app: WebApp, reference_url: str):
    result = app.create_video_with_references("a walk", reference_url, reference_url, 0.6)
    assert_typed(result, QUEUE_JOB_REPLY)
    # It was rendered above; another one would only take time.
    cancel = app.fetch(f"/api/jobs/{result['job']['id']}/cancel", method="POST", headers=app.authorized)
    assert cancel.status_code == 200
    assert app.monitor_job(result["job"]["id"])["status"] == "cancelled"


def test_a_series_with_one_seed_is_four_jobs_with_that_seed(app: WebApp):
    job_ids = app.generate_character_series("a knight in red armour", SEED)
    assert len(set(job_ids)) == 4
    jobs = [app.monitor_job(job_id) for job_id in job_ids]
    assert {(job["status"], job["metadata"]["seed"], len(job["assets"])) for job in jobs} == {("completed", SEED, 1)}
    assert len({fetch(job["assets"][0]) for job in jobs}) == 4


# --- The table of endpoints


def test_assets_are_listed_and_deleted(app: WebApp, high_quality: dict[str, Any]):
    path = "/api/assets"
    listed = app.fetch(path, headers=app.authorized).json()["assets"]
    assert listed
    own = [asset["id"] for asset in listed]
    assert app.fetch(f"{path}/{own[0]}", method="DELETE", headers=app.authorized).status_code == 204
    assert own[0] not in [asset["id"] for asset in app.fetch(path, headers=app.authorized).json()["assets"]]
    high = app.fetch(f"{path}?job_type=sdxl_image_high&page_size=100", headers=app.authorized).json()["assets"]
    assert [asset for asset in high if asset["job_id"] == high_quality["job"]["id"]]
    assert {asset["job_type"] for asset in high} == {"sdxl_image_high"}


def test_uploaded_pictures_are_listed(app: WebApp, reference_url: str):
    listed = app.fetch("/api/reference-images?page_size=100", headers=app.authorized).json()["reference_images"]
    paths = [httpx.URL(image["url"]).path for image in listed]
    assert httpx.URL(reference_url).path in paths


# --- The callback


def test_the_callback_tells_what_polling_tells(
    app: WebApp, receiver: Receiver, with_reference: dict[str, Any], too_late: str
):
    job = app.monitor_job(with_reference["job"]["id"])
    told = receiver.of_job(job["id"])
    assert_typed(told, CALLBACK)
    assert (told["job_id"], told["status"]) == (job["id"], "completed")
    assert [httpx.URL(url).path for url in told["assets"]] == [httpx.URL(url).path for url in job["assets"]]
    assert fetch(told["assets"][0]) == fetch(job["assets"][0])
    assert told["metadata"]["seed"] == 12345
    assert told.get("error_message") is None

    failed = receiver.of_job(too_late)
    assert_typed(failed, CALLBACK)
    assert (failed["status"], failed["assets"]) == ("failed", [])
    assert failed["error_message"] == app.check_job_status(too_late)["error_message"]
    assert receiver.refused == []
