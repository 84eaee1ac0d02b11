"""Whatever goes wrong, the answer has the reference's shape."""

import pytest

from support import fronts

PATHS = [
    ("POST", "/api/queue-job"),
    ("GET", "/api/jobs"),
    ("GET", "/api/jobs/0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53"),
    ("POST", "/api/jobs/0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53/cancel"),
    ("GET", "/api/jobs/0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53/events"),
    ("GET", "/api/queue-status"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_without_a_token_every_call_is_a_401(client, jobs, method, path):
    del client.headers["Authorization"]

    reply = await client.request(method, path, content=b"not even JSON")

    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert reply.json()["success"] is False
    assert reply.json()["details"] == "reason=UNAUTHENTICATED"


async def test_a_token_of_another_secret_is_a_401(client, jobs):
    forged = fronts.token(secret="another secret, long enough for HS256 too")

    reply = await client.post("/api/queue-job", json={}, headers={"Authorization": f"Bearer {forged}"})

    assert (reply.status_code, reply.json()["error"]) == (401, "The token is not valid.")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"prompt=a",
        b"[]",
        b"null",
        b'"text"',
        b'{"jobType": "sdxl_image_fast"',
        b'{"jobType": "\xff"}',
        b'\xef\xbb\xbf{"jobType": "sdxl_image_fast"}',
        b'{"metadata": {"seed": NaN}}',
        b'{"metadata": {"seed": -Infinity}}',
        b'{"metadata": {"reference_strength": 1e999}}',
        b'{"metadata": {"seed": 1, "seed": 2}}',
        b'{"jobType": "image_fast", "jobType": "video_high"}',
        b'{"metadata": {"seed": ' + b"9" * 5_000 + b"}}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        # Read without trouble, but no more than read.
        b'{"metadata": {"a": ' + b"[" * 600 + b"]" * 600 + b"}}",
        b'{"jobType": ' + b'{"a":' * 600 + b"1" + b"}" * 601,
    ],
    ids=range(18),
)
async def test_a_body_that_is_no_json_object_is_a_400(client, jobs, body):
    reply = await client.post("/api/queue-job", content=body)

    assert reply.status_code == 400
    assert reply.json()["success"] is False
    assert reply.json()["details"] == "reason=INVALID_REQUEST"
    assert jobs.accepted == []


async def test_a_body_over_1_mb_is_a_413_and_is_not_read_to_its_end(client, jobs):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 2**16

    reply = await client.post("/api/queue-job", content=endless())

    assert reply.status_code == 413
    assert reply.json()["success"] is False
    assert sent < 2_000
    assert jobs.accepted == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/nowhere", 404),
        ("GET", "/api/queue-job", 405),
        ("DELETE", "/api/jobs", 405),
    ],
)
async def test_a_wrong_address_or_method_has_the_same_shape(client, method, path, status):
    reply = await client.request(method, path)

    assert reply.status_code == status
    assert reply.json()["success"] is False
    assert reply.json()["error"]


async def test_a_405_names_the_methods_that_work(client):
    assert (await client.get("/api/queue-job")).headers["Allow"] == "POST"


async def test_an_unexpected_error_says_nothing_of_our_insides(client, jobs):
    with jobs.failing(RuntimeError("SELECT secret FROM jobs")):
        reply = await client.get("/api/jobs")

    assert reply.status_code == 500
    assert reply.json()["success"] is False
    assert "SELECT" not in reply.text
