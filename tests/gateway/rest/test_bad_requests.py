"""Every bad request is refused with the reference's shape, naming the field, and nothing is stored."""

import json

import pytest

from support.bad_requests import BAD_REQUESTS, BadRequest

FLAGS = {"invalidQuantity", "invalidSeed", "referenceImageError"}


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.name)
async def test_is_refused_and_stores_nothing(client, jobs, bad: BadRequest):
    # ASCII escapes, since half a surrogate pair has no UTF-8.
    reply = await client.post("/api/queue-job", content=json.dumps(bad.rest))

    assert reply.status_code == 400
    body = reply.json()
    assert body["success"] is False
    assert bad.says in body["error"]
    assert body["details"] == f"reason={bad.reason} field={bad.rest_field}"
    assert body["retryable"] is False
    assert body["suggestedAction"]
    assert {flag for flag in FLAGS if body.get(flag)} == ({bad.flag} if bad.flag else set())
    assert jobs.accepted == []
