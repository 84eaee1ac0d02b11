"""What becomes of jobs when the gateway that runs them dies, or is thought dead and comes back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from support.cluster.audit import audit, rendered_once, until_ended
from support.cluster.cluster import Cluster, Gateway, Running
from support.cluster.sse import listen_everywhere

TAKE_OVER = timedelta(seconds=10)
"""What users are promised."""
STEPS = 20
"""Of each job type."""


async def kill(cluster: Cluster, victim: Gateway, run: Running) -> None:
    """Kill a gateway; what it ran belongs to another within the time that is promised, by the database's clock."""
    killed_at = await cluster.clock()
    victim.node.kill()
    async with asyncio.timeout(30):
        while not (
            rows := await cluster.rows(
                "SELECT ended_at FROM gateway_sessions WHERE id = $1 AND ended_at IS NOT NULL", run.session_id
            )
        ):
            await asyncio.sleep(0.1)
    assert rows[0]["ended_at"] - killed_at < TAKE_OVER


async def run_at_first_gateway(cluster: Cluster) -> tuple[Gateway, Gateway]:
    """Let the second gateway sit out, so that the first one gets what is asked for now; return both."""
    first, second = cluster.gateways
    second.node.terminate()
    await asyncio.to_thread(second.node.wait_ended)
    return first, second


async def test_jobs_that_wait_are_enhanced_or_are_rendered_go_on_at_the_other_gateway(cluster: Cluster):
    first, second = await run_at_first_gateway(cluster)
    rendering = [await cluster.ask(first, "a fox pace:400") for _ in cluster.sdxl]
    enhancing = await cluster.ask(first, "a fox write:400", job_type="enhanced_clip")
    waiting = [await cluster.ask(first, "a fox", user=user) for user in ("alice", "bob", "carol")]
    waiting_to_be_enhanced = await cluster.ask(first, "a hare", job_type="enhanced_clip")
    runs = [await cluster.until_running(job_id, steps=1) for job_id in rendering]
    await cluster.until_running(enhancing, "enhancing")
    await asyncio.to_thread(second.node.start)
    watching = [asyncio.create_task(listen_everywhere([first, second], job_id)) for job_id in (*rendering, enhancing)]

    await kill(cluster, first, runs[0])

    for events in await asyncio.gather(*watching):
        # No event is missed, and none comes twice.
        assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["status"] == "completed"
        assert [event["step"] for event in events if "step" in event] == list(range(1, STEPS + 1))
    await audit(cluster)
    for job_id in (*rendering, *waiting, enhancing, waiting_to_be_enhanced):
        assert await rendered_once(cluster, job_id)


async def test_a_job_that_cannot_be_stored_just_now_is_not_rendered_again(cluster: Cluster):
    first, second = await run_at_first_gateway(cluster)
    staged = Path(cluster.storage["PATH"]) / ".staged"
    job_id = await cluster.ask(first, "a fox pace:10")
    run = await cluster.until_running(job_id)
    staged.rename(staged.with_suffix(".away"))
    staged.write_text("nothing can be stored")
    async with asyncio.timeout(30):
        while not await cluster.rows(
            "SELECT 1 FROM job_events WHERE job_id = $1 AND stage = 'uploading'", UUID(job_id)
        ):
            await asyncio.sleep(0.05)
    await asyncio.to_thread(second.node.start)

    await kill(cluster, first, run)
    staged.unlink()
    staged.with_suffix(".away").rename(staged)

    await audit(cluster)
    assert await rendered_once(cluster, job_id)


async def test_a_render_whose_end_was_not_recorded_is_recorded_by_the_other_gateway(cluster: Cluster):
    first, second = await run_at_first_gateway(cluster)
    job_id = await cluster.ask(first, "a fox pace:100")
    run = await cluster.until_running(job_id, steps=5)
    # It hears nothing more, and so records nothing more, while the render goes on to its end.
    first.node.freeze()
    manifest = Path(cluster.storage["PATH"]) / "pictures" / "alice" / f"{job_id}" / f"{run.attempt}" / "manifest.json"
    async with asyncio.timeout(30):
        while not manifest.exists():
            await asyncio.sleep(0.05)
    await asyncio.to_thread(second.node.start)

    await kill(cluster, first, run)

    await audit(cluster)
    assert await rendered_once(cluster, job_id)


async def everything(cluster: Cluster, job_ids: list[str]) -> dict[str, list[tuple[Any, ...]]]:
    """All rows that say anything of these jobs."""
    return {
        table: sorted(
            tuple(map(str, row.values()))
            for row in await cluster.rows(
                f"SELECT * FROM {table} WHERE {key} = ANY($1::uuid[])", [UUID(job_id) for job_id in job_ids]
            )
        )
        for table, key in {
            "jobs": "id",
            "attempts": "job_id",
            "assets": "job_id",
            "credit_ledger": "job_id",
        }.items()
    }


async def test_a_gateway_that_was_thought_dead_changes_nothing_when_it_wakes(cluster: Cluster):
    first, second = await run_at_first_gateway(cluster)
    # One whose end comes while the gateway is frozen, so that it wakes with the result in its hands, and one that it
    # would go on following.
    short, long = await cluster.ask(first, "a fox pace:200"), await cluster.ask(first, "a fox pace:900")
    runs = [await cluster.until_running(job_id, steps=1) for job_id in (short, long)]
    await asyncio.to_thread(second.node.start)

    killed_at = await cluster.clock()
    first.node.freeze()
    async with asyncio.timeout(30):
        while (await cluster.running(long)) is None or (await cluster.running(long)).owner is not second:
            await asyncio.sleep(0.1)
    assert await cluster.clock() - killed_at < TAKE_OVER
    await until_ended(cluster, [short])
    before = await everything(cluster, [short])
    first.node.thaw()
    said = len(first.node.said())
    await until_ended(cluster, [long])
    async with asyncio.timeout(30):
        while not any("declared dead" in line["event"] for line in first.node.said()[said:]):
            await asyncio.sleep(0.1)

    assert await everything(cluster, [short]) == before
    assert all([await rendered_once(cluster, job_id) for job_id in (short, long)])
    owners = await cluster.rows("SELECT DISTINCT session_id FROM attempts WHERE job_id = $1", UUID(long))
    assert [row["session_id"] for row in owners] != [runs[1].session_id]
    # It has begun anew, and is of use again.
    second.node.terminate()
    await cluster.ask(first, "a hare")
    await audit(cluster)
    await asyncio.to_thread(second.node.wait_ended)


async def test_who_lost_the_answer_asks_again_elsewhere_and_gets_the_one_job(cluster: Cluster):
    first, second = cluster.gateways
    # Stopped in the middle: some were stored and their answers are lost, others never arrived.
    asking = [asyncio.create_task(first.ask("a fox", key=f"key-{n}", user="dave")) for n in range(40)]
    await asyncio.sleep(0.1)
    first.node.kill()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert any(isinstance(answer, httpx.TransportError) for answer in answers)

    again = [await second.ask("a fox", key=f"key-{n}", user="dave") for n in range(40)]

    assert len(set(again)) == 40
    for answer, repeated in zip(answers, again, strict=True):
        if isinstance(answer, str):
            assert answer == repeated
    cluster.accepted.extend(again)
    await audit(cluster)
