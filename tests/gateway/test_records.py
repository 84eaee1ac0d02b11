"""Jobs as they are read back."""

import base64
import json
from uuid import uuid4

import pytest

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import InvalidRequest
from ourvidz_gateway.jobs import JobFilter
from ourvidz_gateway.records import Records, shown_metadata
from support.jobs import new_job


async def test_a_token_of_a_moment_that_never_was_is_a_bad_request(database: Database):
    for moment in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        token = base64.urlsafe_b64encode(json.dumps([moment, str(uuid4())]).encode()).decode()
        with pytest.raises(InvalidRequest):
            await Records(database).page("alice", JobFilter(), page_size=2, page_token=token)


def test_an_enhanced_prompt_is_shown_beside_the_users_own():
    job = new_job(job_type="image7b_fast_enhanced", mood="calm")
    came_in = {"prompt": "a lighthouse at dawn", "mood": "calm", "seed": 7, "num_images": 1}

    assert shown_metadata(job.metadata, job.request, {}) == came_in
    assert shown_metadata(job.metadata, {**job.request, "enhanced_prompt": "more of it"}, {"model": "m"}) == {
        **came_in,
        "enhanced_prompt": "more of it",
        "original_prompt": "a lighthouse at dawn",
        "model": "m",
    }
