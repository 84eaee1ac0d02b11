"""A job's progress as Server-Sent Events."""

import asyncio
import base64
import json

import pytest

from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.jobs import JobState
from ourvidz_gateway.previews import Preview
from ourvidz_gateway.rest import events


@pytest.fixture
async def job_id(client, jobs):
    await client.post("/api/queue-job", json={"jobType": "sdxl_image_fast", "metadata": {"prompt": "a lighthouse"}})
    return jobs.accepted[0].id


def parse(text: str) -> list[tuple[str, str, dict]]:
    """The events of a stream as (id, name, data); comments are left out."""
    parsed = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if fields:
            parsed.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return parsed


async def test_every_state_and_step_is_sent_to_the_terminal_one(client, jobs, job_id):
    jobs.step(job_id, 1)
    jobs.step(job_id, 2)
    jobs.end(job_id, JobState.FAILED, error_message="The renderer died.")

    reply = await client.get(f"/api/jobs/{job_id}/events")

    assert reply.headers["Content-Type"].startswith("text/event-stream")
    got = parse(reply.text)
    assert [(number, name) for number, name, _ in got] == [("1", "state"), ("2", "step"), ("3", "step"), ("4", "state")]
    assert got[0][2] == {
        "job_id": str(job_id),
        "sequence": 1,
        "status": "queued",
        "stage": "queued",
        "progress": 0,
        "attempt": 0,
        "created_at": "2026-01-27T12:00:00+00:00",
    }
    assert got[1][2] == {
        "job_id": str(job_id),
        "sequence": 2,
        "status": "processing",
        "stage": "rendering",
        "progress": 4,
        "attempt": 1,
        "created_at": "2026-01-27T12:00:01+00:00",
        "step": 1,
        "step_count": 20,
        "image_index": 0,
        "image_count": 1,
    }
    assert (got[3][2]["status"], got[3][2]["error_message"]) == ("failed", "The renderer died.")


async def test_a_listener_goes_on_where_it_stopped(client, jobs, job_id):
    jobs.step(job_id, 1)
    jobs.end(job_id)

    reply = await client.get(f"/api/jobs/{job_id}/events", headers={"Last-Event-ID": "2"})

    assert [number for number, _, _ in parse(reply.text)] == ["3"]


async def test_a_listener_that_has_seen_all_of_an_ended_job_is_told_to_stop(client, jobs, job_id):
    jobs.end(job_id)

    reply = await client.get(f"/api/jobs/{job_id}/events", headers={"Last-Event-ID": "2"})

    assert (reply.status_code, reply.content) == (204, b"")


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "9" * 30, "²"])
async def test_a_last_event_id_that_is_no_number_is_a_400(client, job_id, number):
    reply = await client.get(f"/api/jobs/{job_id}/events", headers={"Last-Event-ID": number.encode()})

    assert reply.status_code == 400
    assert reply.json()["details"] == "reason=INVALID_REQUEST field=Last-Event-ID"


async def test_events_arrive_as_they_happen(served, jobs, job_id):
    async with served.stream("GET", f"/api/jobs/{job_id}/events") as reply:
        lines = reply.aiter_lines()
        assert await anext(lines) == "id: 1"
        jobs.step(job_id, 1)
        assert "id: 2" in [await anext(lines) for _ in range(4)]
        jobs.end(job_id)
        rest = [line async for line in lines]

    assert "id: 3" in rest
    assert jobs.watchers == 0


async def test_a_quiet_stream_is_kept_alive_by_comments(served, jobs, job_id, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.01)

    async with served.stream("GET", f"/api/jobs/{job_id}/events") as reply:
        async for line in reply.aiter_lines():
            if line.startswith(":"):
                break
        else:
            pytest.fail("the stream ended without a comment")


async def test_a_listener_that_goes_away_is_let_go_of(served, jobs, job_id):
    async with served.stream("GET", f"/api/jobs/{job_id}/events") as reply:
        assert await anext(reply.aiter_lines()) == "id: 1"
        assert jobs.watchers == 1

    async with asyncio.timeout(10):
        while jobs.watchers:  # the server learns of it from the socket, in its own time
            await asyncio.sleep(0)


async def test_a_stream_that_breaks_on_our_side_ends_so_that_the_listener_asks_again(served, jobs, job_id):
    async with served.stream("GET", f"/api/jobs/{job_id}/events") as reply:
        lines = reply.aiter_lines()
        assert await anext(lines) == "id: 1"
        jobs.interrupt(job_id, DatabaseUnavailable("The database is out of reach."))
        rest = [line async for line in lines]

    assert not [line for line in rest if line.startswith("id:")]
    assert jobs.watchers == 0


async def test_previews_are_sent_to_those_who_ask_without_a_number(served, app, jobs, job_id):
    previews = app.state.front.parts.previews
    with previews.rendering(job_id):
        jobs.step(job_id, 1)
        previews.show(Preview(job_id, attempt=1, image_index=0, step=1, jpeg=b"\xff\xd8 one"))
        async with (
            served.stream("GET", f"/api/jobs/{job_id}/events", params={"preview": "1"}) as asking,
            served.stream("GET", f"/api/jobs/{job_id}/events") as other,
        ):
            text = ""
            async with asyncio.timeout(30):
                async for piece in asking.aiter_text():
                    text += piece
                    if "event: preview" in text and text.endswith("\n\n"):
                        break
            jobs.end(job_id)
            others = "".join([piece async for piece in other.aiter_text()])

    got = parse(text)
    jpeg = base64.b64encode(b"\xff\xd8 one").decode()
    assert [(number, name) for number, name, _ in got] == [("1", "state"), ("2", "step"), ("", "preview")]
    assert got[-1][2] == {
        "job_id": str(job_id),
        "attempt": 1,
        "image_index": 0,
        "step": 1,
        "jpeg": f"data:image/jpeg;base64,{jpeg}",
    }
    assert [number for number, _, _ in parse(others)] == ["1", "2", "3"]


async def test_whether_previews_are_asked_for_must_be_said_clearly(client, job_id):
    reply = await client.get(f"/api/jobs/{job_id}/events", params={"preview": "perhaps"})

    assert (reply.status_code, reply.json()["details"]) == (400, "reason=INVALID_REQUEST field=preview")
