"""Jobs over REST, as the web app meets them."""

import json
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from ourvidz_gateway.errors import DatabaseUnavailable, InsufficientCredits, NoRenderer, QueueFull
from ourvidz_gateway.jobs import JobState
from support import fronts

SDXL = {"jobType": "sdxl_image_fast", "metadata": {"prompt": "a lighthouse", "seed": 12345, "num_images": 3}}


async def queue(client, body=SDXL) -> UUID:
    reply = await client.post("/api/queue-job", json=body)
    assert reply.status_code == 200
    return UUID(reply.json()["job"]["id"])


async def test_a_job_is_answered_in_the_references_shape(client, jobs):
    reply = await client.post("/api/queue-job", json=SDXL)

    assert reply.status_code == 200
    assert reply.json() == {
        "success": True,
        "job": {
            "id": str(jobs.accepted[0].id),
            "user_id": "alice",
            "job_type": "sdxl_image_fast",
            "status": "queued",
            "created_at": "2026-01-27T12:00:00Z",
            "metadata": {"prompt": "a lighthouse", "seed": 12345, "num_images": 3},
        },
        "message": "sdxl_image_fast job queued.",
        "queueLength": 1,
        "modelVariant": "sdxl",
        "isSDXL": True,
        "negativePromptSupported": True,
        "referenceImageSupported": True,
        "flexibleQuantitiesSupported": True,
        "seedControlSupported": True,
    }


@pytest.mark.parametrize(
    ("job_type", "variant", "reference"),
    [
        ("image_high", "wan_2_1_1_3b", False),
        ("video_fast", "wan_2_1_1_3b", True),
        ("image7b_fast_enhanced", "wan_2_1_1_3b_qwen_7b", False),
    ],
)
async def test_the_flags_say_what_a_wan_type_can_do(client, job_type, variant, reference):
    reply = (await client.post("/api/queue-job", json={"jobType": job_type, "metadata": {"prompt": "a"}})).json()

    assert (reply["modelVariant"], reply["isSDXL"]) == (variant, False)
    assert (reply["referenceImageSupported"], reply["flexibleQuantitiesSupported"]) == (reference, False)


async def test_a_job_may_say_by_when_it_must_start(client, jobs):
    reply = await client.post("/api/queue-job", json={**SDXL, "startTimeoutSeconds": 2.5})
    late = await client.post("/api/queue-job", json={**SDXL, "startTimeoutSeconds": 86_401})

    assert (reply.status_code, [job.start_timeout_s for job in jobs.accepted]) == (200, [2.5])
    assert (late.status_code, late.json()["details"]) == (400, "reason=INVALID_REQUEST field=startTimeoutSeconds")


async def test_the_references_example_is_taken_as_browsers_send_it(client, jobs):
    # The last of its examples sets no content type, and fetch() then calls a string text/plain.
    body = {
        "jobType": "sdxl_image_high",
        "metadata": {
            "prompt": "beautiful woman in garden",
            "credits": 2,
            "num_images": 6,
            "seed": 67890,
            "negative_prompt": "blurry, low quality, watermark, text, logo",
        },
    }

    reply = await client.post(
        "/api/queue-job", content=json.dumps(body), headers={"Content-Type": "text/plain;charset=UTF-8"}
    )

    assert reply.status_code == 200
    assert (jobs.accepted[0].credits, jobs.accepted[0].request["image_count"]) == (2, 6)


async def test_a_waiting_job_shows_where_it_stands(client):
    job_id = await queue(client, {**SDXL, "projectId": "p1", "videoId": "v1", "imageId": "i1"})

    assert (await client.get(f"/api/jobs/{job_id}")).json() == {
        "id": str(job_id),
        "user_id": "alice",
        "job_type": "sdxl_image_fast",
        "status": "queued",
        "stage": "queued",
        "progress": 0,
        "queue_position": 0,
        "created_at": "2026-01-27T12:00:00Z",
        "started_at": None,
        "completed_at": None,
        "metadata": SDXL["metadata"],
        "assets": [],
        "asset_ids": [],
        "error_message": None,
        "credits": 1,
        "warnings": [],
        "project_id": "p1",
        "video_id": "v1",
        "image_id": "i1",
        "retry_of": None,
    }


async def test_a_completed_job_has_urls_that_open_its_assets(client, app, jobs):
    job_id = await queue(client)
    jobs.end(job_id, outputs=3)
    assets = (await jobs.get("alice", job_id)).assets
    for asset in assets:
        await app.state.front.store.put(
            asset.bucket, asset.key, f"picture {asset.index}".encode(), content_type="image/png"
        )

    job = (await client.get(f"/api/jobs/{job_id}")).json()

    assert (job["status"], job["stage"], job["progress"]) == ("completed", None, 100)
    assert job["completed_at"] == "2026-01-27T12:01:00Z"
    assert job["asset_ids"] == [str(asset.id) for asset in assets]
    for index, url in enumerate(job["assets"]):
        assert url.startswith(fronts.PUBLIC_URL)
        parts = urlsplit(url)
        picture = await client.get(f"{parts.path}?{parts.query}")
        assert (picture.status_code, picture.content) == (200, f"picture {index}".encode())


async def test_a_failed_job_says_why(client, jobs):
    job_id = await queue(client)
    jobs.end(job_id, JobState.FAILED, error_message="The renderer died three times.")

    job = (await client.get(f"/api/jobs/{job_id}")).json()

    assert (job["status"], job["error_message"], job["assets"]) == ("failed", "The renderer died three times.", [])


async def test_cancelling_tells_what_it_found_and_can_be_repeated(client):
    job_id = await queue(client)

    first = (await client.post(f"/api/jobs/{job_id}/cancel")).json()
    second = (await client.post(f"/api/jobs/{job_id}/cancel")).json()

    assert (first["success"], first["found_status"], first["job"]["status"]) == (True, "queued", "cancelled")
    assert (second["success"], second["found_status"], second["job"]["status"]) == (True, "cancelled", "cancelled")


async def test_jobs_are_listed_newest_first_page_by_page(client):
    made = [str(await queue(client)) for _ in range(5)]

    seen, cursor = [], ""
    while cursor is not None:
        page = (await client.get("/api/jobs", params={"page_size": 2, "page_token": cursor})).json()
        assert len(page["jobs"]) <= 2
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]

    assert seen == made[::-1]


async def test_a_list_shows_what_its_filters_ask_for(client, jobs):
    plain = await queue(client)
    video = await queue(client, {"jobType": "video_fast", "metadata": {"prompt": "a"}, "projectId": "p"})
    jobs.end(plain)

    async def ids(**where):
        return [job["id"] for job in (await client.get("/api/jobs", params=where)).json()["jobs"]]

    assert await ids(job_type="video_fast") == [str(video)]
    assert await ids(status="completed") == [str(plain)]
    assert await ids(project_id="p") == [str(video)]
    assert await ids(project_id="q") == []
    assert await ids(project_id="", job_type="") == [str(video), str(plain)]


@pytest.mark.parametrize(
    ("where", "reason", "field"),
    [
        ({"page_size": 0}, "INVALID_REQUEST", "page_size"),
        ({"page_size": 101}, "INVALID_REQUEST", "page_size"),
        ({"page_size": "many"}, "INVALID_REQUEST", "page_size"),
        ({"page_token": "nonsense"}, "INVALID_REQUEST", "page_token"),
        ({"status": "done"}, "INVALID_REQUEST", "status"),
        ({"job_type": "film"}, "UNKNOWN_JOB_TYPE", "job_type"),
        ({"video_id": "a\0"}, "INVALID_REQUEST", "video_id"),
    ],
)
async def test_a_bad_filter_is_refused_by_name(client, where, reason, field):
    reply = await client.get("/api/jobs", params=where)

    assert reply.status_code == 400
    assert reply.json()["details"] == f"reason={reason} field={field}"


@pytest.mark.parametrize(
    "job_id",
    [
        "0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53",
        "nonsense",
        "0b6f1c9e6d0c4a679a396f1f3a1f0c53",
        "{0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53}",
        "%00",
        "1",
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel"), ("GET", "/events")])
async def test_an_unknown_job_is_a_404(client, job_id, method, path):
    reply = await client.request(method, f"/api/jobs/{job_id}{path}")

    assert reply.status_code == 404
    assert reply.json()["success"] is False
    assert reply.json()["details"] == "reason=JOB_NOT_FOUND"


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel"), ("GET", "/events")])
async def test_another_users_job_looks_like_an_unknown_one(client, jobs, method, path):
    job_id = await queue(client)

    reply = await client.request(
        method, f"/api/jobs/{job_id}{path}", headers={"Authorization": f"Bearer {fronts.token('bob')}"}
    )

    assert (reply.status_code, reply.json()["error"]) == (404, f"There is no job {job_id}.")
    assert (await jobs.get("alice", job_id)).state is JobState.QUEUED


async def test_a_list_shows_nobody_elses_jobs(client):
    await queue(client)

    reply = await client.get("/api/jobs", headers={"Authorization": f"Bearer {fronts.token('bob')}"})

    assert reply.json() == {"jobs": [], "next_cursor": None}


async def test_queue_status_tells_the_depth_of_each_queue(client):
    await queue(client)

    assert (await client.get("/api/queue-status")).json() == {
        "queueDepth": 1,
        "queues": {
            "sdxl_queue": {"depth": 1, "running": 1, "oldestSeconds": 2.5, "renderers": 1},
            "wan_queue": {"depth": 0, "running": 0, "oldestSeconds": None, "renderers": 0},
            "enhancer_queue": {"depth": 0, "running": 0, "oldestSeconds": None, "renderers": 0},
        },
    }


@pytest.mark.parametrize(
    ("error", "status", "retryable", "retry_after"),
    [
        (QueueFull("1000 jobs wait already.", retry_after_s=9.2), 503, True, "10"),
        (DatabaseUnavailable("The database is out of reach."), 503, True, "5"),
        (NoRenderer("No wan renderer is configured."), 503, False, None),
        (InsufficientCredits("You have 0 credits; this job costs 1."), 402, False, None),
    ],
)
async def test_a_job_that_can_not_be_taken_is_told_what_to_do(client, jobs, error, status, retryable, retry_after):
    with jobs.failing(error):
        reply = await client.post("/api/queue-job", json=SDXL)

    assert reply.status_code == status
    assert reply.headers.get("Retry-After") == retry_after
    assert reply.json() == {
        "success": False,
        "error": error.message,
        "details": f"reason={error.reason}",
        "retryable": retryable,
        "suggestedAction": error.suggested_action,
    }
