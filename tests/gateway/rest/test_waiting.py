"""`Prefer: wait=N` on a request for a job."""

import asyncio

import httpx
import pytest

from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.jobs import JobState
from ourvidz_gateway.rest import preferences
from support.memory_jobs import MemoryJobs

SDXL = {"jobType": "sdxl_image_fast", "metadata": {"prompt": "a lighthouse", "seed": 5}}


async def ask(client: httpx.AsyncClient, prefer: str = "wait=50") -> httpx.Response:
    return await client.post("/api/queue-job", json=SDXL, headers={"Prefer": prefer})


async def watched(jobs: MemoryJobs) -> None:
    """Wait until a request waits for its job."""
    async with asyncio.timeout(30):
        while not jobs.watchers:  # there is no event to wait for
            await asyncio.sleep(0)


async def test_it_answers_when_the_job_has_ended_with_all_that_there_is_to_see(client, jobs):
    asking = asyncio.create_task(ask(client))
    await watched(jobs)
    jobs.step(jobs.accepted[0].id, 1)
    assert not asking.done()
    jobs.end(jobs.accepted[0].id, outputs=2)

    reply = await asking

    assert (reply.status_code, reply.headers["Preference-Applied"]) == (200, "wait=50")
    body = reply.json()
    assert (body["success"], body["message"]) == (True, "sdxl_image_fast job completed.")
    assert (body["queueLength"], body["modelVariant"], body["isSDXL"]) == (1, "sdxl", True)
    job = (await client.get(f"/api/jobs/{jobs.accepted[0].id}")).json()
    assert len(job["assets"]) == 2
    # Each reply signs its URLs anew.
    assert {**body["job"], "assets": None} == {**job, "assets": None}
    assert jobs.watchers == 0


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
async def test_it_answers_also_when_the_job_has_not_ended_well(client, jobs, state):
    asking = asyncio.create_task(ask(client))
    await watched(jobs)
    jobs.end(jobs.accepted[0].id, state, error_message="It broke.")

    reply = await asking

    assert reply.status_code == 200
    assert (reply.json()["job"]["status"], reply.json()["job"]["error_message"]) == (state, "It broke.")


async def test_after_the_time_it_answers_with_the_job_as_it_stands(client, jobs):
    reply = await ask(client, "respond-async, wait=1")

    assert (reply.status_code, reply.headers["Preference-Applied"]) == (200, "wait=1")
    assert (reply.json()["job"]["status"], reply.json()["message"]) == ("queued", "sdxl_image_fast job queued.")
    assert reply.json()["job"]["progress"] == 0
    assert jobs.watchers == 0


async def test_nobody_waits_for_longer_than_proxies_do(client, jobs, monkeypatch):
    monkeypatch.setattr(preferences, "MAX_WAIT_S", 1)

    reply = await ask(client, "wait=86400")

    assert (reply.headers["Preference-Applied"], reply.json()["job"]["status"]) == ("wait=1", "queued")


@pytest.mark.parametrize("prefer", ["wait=0", "wait=soon", "return=minimal"])
async def test_other_preferences_change_nothing(client, prefer):
    reply = await ask(client, prefer)

    assert reply.status_code == 200
    assert "Preference-Applied" not in reply.headers
    assert "progress" not in reply.json()["job"]


async def test_a_job_that_was_accepted_is_told_though_the_database_goes_away(client, jobs):
    asking = asyncio.create_task(ask(client))
    await watched(jobs)
    jobs.interrupt(jobs.accepted[0].id, DatabaseUnavailable("The database is out of reach."))

    reply = await asking

    assert reply.status_code == 200
    assert reply.json()["job"]["id"] == str(jobs.accepted[0].id)
    assert reply.json()["job"]["status"] == "queued"


async def test_a_caller_who_leaves_cancels_nothing_and_is_no_longer_waited_for(served, jobs):
    asking = asyncio.create_task(ask(served))
    await watched(jobs)
    asking.cancel()

    async with asyncio.timeout(30):
        while jobs.watchers:  # the server learns of it from the socket, in its own time
            await asyncio.sleep(0)
    assert (await jobs.get("alice", jobs.accepted[0].id)).state is JobState.QUEUED


async def test_the_preference_is_described(client):
    operation = (await client.get("/openapi.json")).json()["paths"]["/api/queue-job"]["post"]

    [prefer] = [each for each in operation["parameters"] if each["name"] == "prefer"]
    assert (prefer["in"], prefer["required"]) == ("header", False)
    assert "at most 55" in prefer["description"]
    assert "Preference-Applied" in operation["responses"]["200"]["headers"]
