"""What the end of a job puts in the outbox, and how senders take turns with it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ourvidz_gateway.gateway import Gateway, open_gateway
from ourvidz_gateway.jobs import JobState, Kind, NewJob
from ourvidz_gateway.outbox import Outbox
from ourvidz_gateway.webhooks import WebhookPolicy, WebhookSender
from support import fronts
from support.ended_jobs import ALL, ended_job, webhook_of
from support.jobs import Bench, painted_job
from support.receiver import Receiver, receiver
from support.renderer import Renderer
from support.senders import SECRET, checked, store_in

Open = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture
async def operators() -> AsyncIterator[Receiver]:
    async with receiver() as operators:
        yield operators


@pytest.fixture
async def hooks() -> AsyncIterator[Receiver]:
    async with receiver() as hooks:
        yield hooks


@pytest.fixture
def open_told(
    dsn: str, renderer: Renderer, tmp_path: Path, operators: Receiver, hooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> Open:
    """Open a gateway that tells the operator, and the job's receiver where a job names it.

    Its sender never looks for itself whether a job has ended: it is told.
    """
    store = store_in(tmp_path / "objects")
    untimely = partial(WebhookSender, policy=WebhookPolicy(sweep_s=3600))
    monkeypatch.setattr("ourvidz_gateway.gateway.WebhookSender", untimely)

    def opened(**values: object) -> AbstractAsyncContextManager[Gateway]:
        stated = {
            "database_url": dsn,
            "renderers_sdxl": f"127.0.0.1:{renderer.server.port}",
            "lease_s": 1,
            "webhook_url": operators.url,
            "webhook_secret": SECRET,
            "webhook_hosts": hooks.host,
            "allow_private_fetch": True,
            **values,
        }
        return open_gateway(fronts.settings(**stated), store)

    return opened


def job_that_tells(hooks: Receiver, prompt: str = "a fox", **more: Any) -> NewJob:
    return replace(painted_job(prompt=prompt, **more), webhook_url=hooks.url)


async def told(hooks: Receiver, operators: Receiver, job_id: UUID) -> dict[str, Any]:
    """What both were told about a job, the same, once each."""
    [to_job], [to_operator] = await hooks.has(1), await operators.has(1)
    body, other = checked(to_job), checked(to_operator)
    assert {**body, "assets": len(body["assets"])} == {**other, "assets": len(other["assets"])}
    assert body["job_id"] == str(job_id)
    return body


async def targets(bench: Bench) -> list[str]:
    rows = await bench.database.fetch("SELECT target FROM webhook_outbox ORDER BY target")
    return [row["target"] for row in rows]


BOTH = ["job", "operator"]


class TestEndOfAJob:
    """Each kind of end puts exactly one webhook there for each receiver; an end that lasts tells it once."""

    async def test_completed(self, bench, open_told, hooks, operators):
        async with open_told() as gateway:
            job = job_that_tells(hooks, images=3)
            await gateway.accept(job)
            body = await told(hooks, operators, job.id)

        assert (body["status"], len(body["assets"]), body["metadata"]["seed"]) == ("completed", 3, 7)
        assert await targets(bench) == BOTH

    async def test_failed(self, bench, open_told, hooks, operators):
        async with open_told() as gateway:
            job = job_that_tells(hooks, "invalid")
            await gateway.accept(job)
            body = await told(hooks, operators, job.id)

        assert (body["status"], body["assets"]) == ("failed", [])
        assert body["error_message"]
        assert await targets(bench) == BOTH

    async def test_cancelled_while_it_waits(self, bench, open_told, hooks, operators):
        async with open_told(renderers_sdxl="127.0.0.1:1") as gateway:
            job = job_that_tells(hooks)
            await gateway.accept(job)
            await gateway.cancel("alice", job.id)
            await gateway.cancel("alice", job.id)
            body = await told(hooks, operators, job.id)

        assert (body["status"], body["error_message"]) == ("cancelled", "The job was cancelled.")
        assert await targets(bench) == BOTH

    async def test_cancelled_while_it_runs(self, bench, open_told, hooks, operators, renderer):
        async with open_told() as gateway:
            job = job_that_tells(hooks, "hold:1:1", images=3)
            await gateway.accept(job)
            await renderer.gate.held()
            await gateway.cancel("alice", job.id)
            renderer.gate.release()
            body = await told(hooks, operators, job.id)

        assert (body["status"], len(body["assets"])) == ("cancelled", 1)
        assert await targets(bench) == BOTH

    async def test_waited_for_too_long(self, bench, open_told, hooks, operators):
        async with open_told(renderers_sdxl="127.0.0.1:1", wait_limit_s=0.01) as gateway:
            job = job_that_tells(hooks)
            await gateway.accept(job)
            body = await told(hooks, operators, job.id)

        assert (body["status"], "was free" in body["error_message"]) == ("failed", True)
        assert await targets(bench) == BOTH

    async def test_not_begun_in_time(self, bench, open_told, hooks, operators):
        async with open_told(renderers_sdxl="127.0.0.1:1") as gateway:
            job = replace(job_that_tells(hooks), start_timeout_s=0.01)
            await gateway.accept(job)
            body = await told(hooks, operators, job.id)

        assert body["status"] == "failed"
        assert await targets(bench) == BOTH

    async def test_cancelled_between_two_attempts(self, bench, hooks):
        session_id = await bench.add_session()
        await bench.add_slots()
        await bench.accept(job_that_tells(hooks))
        claim = await bench.claim(session_id)
        await bench.database.execute("UPDATE jobs SET cancel_requested_at = now()")

        event = await bench.attempts.retry(claim, session_id, reason="BUSY", counts=False, delay_s=0, cost=1)

        assert event.state is JobState.CANCELLED
        assert await targets(bench) == BOTH

    async def test_cancelled_between_two_stages(self, bench, hooks):
        session_id = await bench.add_session()
        await bench.add_slots()
        await bench.accept(job_that_tells(hooks))
        claim = await bench.claim(session_id)
        await bench.database.execute("UPDATE jobs SET cancel_requested_at = now()")

        event = await bench.attempts.advance(claim, session_id, request={}, warnings=[], kind=Kind.SDXL, cost=1)

        assert event.state is JobState.CANCELLED
        assert await targets(bench) == BOTH

    async def test_a_job_that_goes_on_tells_nobody(self, bench, hooks):
        session_id = await bench.add_session()
        await bench.add_slots()
        await bench.accept(job_that_tells(hooks))
        claim = await bench.claim(session_id)
        request = claim.request

        await bench.attempts.retry(claim, session_id, reason="BUSY", counts=False, delay_s=0, cost=1)
        claim = await bench.claim(session_id)
        await bench.attempts.advance(claim, session_id, request=request, warnings=[], kind=Kind.SDXL, cost=1)

        assert await targets(bench) == []

    async def test_an_end_that_comes_too_late_tells_nobody(self, bench, hooks):
        session_id = await bench.add_session()
        await bench.add_slots()
        await bench.accept(job_that_tells(hooks))
        claim = await bench.claim(session_id)
        await bench.attempts.fail(claim, session_id, reason="BUG", message="It failed.")

        assert await bench.attempts.fail(claim, session_id, reason="BUG", message="It failed.") is None
        assert await targets(bench) == BOTH

    async def test_without_an_operators_url_only_the_job_s_receiver_is_told(self, bench, open_told, hooks):
        async with open_told(webhook_url=None) as gateway:
            await gateway.accept(job_that_tells(hooks))
            await hooks.has(1)

        assert await targets(bench) == ["job"]

    async def test_without_any_url_nothing_is_put_there(self, bench, open_told):
        async with open_told(webhook_url=None) as gateway:
            job = painted_job()
            await gateway.accept(job)
            await bench.until("(SELECT state = 'completed' FROM jobs WHERE id = $1)", job.id)

        assert await targets(bench) == []


class TestTurns:
    @pytest.fixture
    def outbox(self, database) -> Outbox:
        return Outbox(database)

    async def row(self, bench: Bench, webhook_id: UUID) -> Any:
        return await bench.database.fetchrow("SELECT * FROM webhook_outbox WHERE id = $1", webhook_id)

    async def test_what_a_late_sender_records_changes_nothing_once_another_has_the_webhook(self, bench, outbox):
        webhook_id = await webhook_of(bench.database)
        [late] = await outbox.claim(ALL, lease_s=60)
        assert await outbox.claim(ALL, lease_s=60) == []
        await bench.database.execute("UPDATE webhook_outbox SET leased_until = now()")
        [mine] = await outbox.claim(ALL, lease_s=60)

        await outbox.delivered(late, http_status=200)
        await outbox.failed(late, error="late", http_status=None, for_good=True, delay_s=0, give_up_after_s=60)
        await outbox.let_go(late)

        stands = await self.row(bench, webhook_id)
        assert (stands["delivered_at"], stands["given_up_at"], stands["last_error"]) == (None, None, None)
        assert (stands["leased_until"], stands["tries"]) == (mine.leased_until, 2)

    async def test_the_last_try_is_made_when_the_day_is_over_not_a_pause_before(self, bench, outbox):
        webhook_id = await webhook_of(bench.database)
        await bench.database.execute("UPDATE webhook_outbox SET created_at = created_at - interval '23 hours'")
        [mine] = await outbox.claim(ALL, lease_s=60)

        given_up = await outbox.failed(
            mine, error="no", http_status=None, for_good=False, delay_s=4 * 3600, give_up_after_s=24 * 3600
        )

        stands = await self.row(bench, webhook_id)
        assert not given_up
        assert stands["next_try_at"] == stands["created_at"] + timedelta(days=1)

    async def test_each_hosts_oldest_comes_before_any_hosts_second(self, database, outbox):
        for host in ("a", "a", "a", "b", "c"):
            await webhook_of(database, f"https://{host}.example.com/hooks")

        first = await outbox.claim(replace(ALL, in_all=3), lease_s=60)

        assert {webhook.host for webhook in first} == {"a.example.com", "b.example.com", "c.example.com"}

    async def test_a_host_takes_no_more_than_there_is_room_for(self, database, outbox):
        for host in ("a:8443", "a:8443", "a:8443", "b", "b", "b"):
            await webhook_of(database, f"https://{host}/hooks")
        await webhook_of(database)

        room = replace(ALL, for_a_host=1, for_hosts={"a:8443": 2, "": 0})
        claimed = await outbox.claim(room, lease_s=60)

        assert sorted(webhook.host for webhook in claimed) == ["a:8443", "a:8443", "b"]

    async def test_all_silent_hosts_together_take_no_more_than_there_is_room_for(self, database, outbox):
        for host in "abcd":
            await webhook_of(database, f"https://{host}/hooks")

        room = replace(ALL, silent_hosts=frozenset("abc"), for_silent_hosts=1)
        claimed = await outbox.claim(room, lease_s=60)

        assert [webhook.host for webhook in claimed if webhook.host in "abc"] == ["a"]
        assert len(claimed) == 2

    @pytest.mark.parametrize(
        ("url", "host"),
        [
            ("https://Hooks.Example.com", "hooks.example.com"),
            ("https://hooks.example.com:8443/a?b=https://c/d", "hooks.example.com:8443"),
            ("https://hooks.example.com?a", "hooks.example.com"),
            ("http://[::1]:80/#a", "[::1]:80"),
            (None, ""),
        ],
    )
    async def test_a_url_takes_turns_by_its_host(self, database, outbox, url, host):
        await webhook_of(database, url)

        [webhook] = await outbox.claim(ALL, lease_s=60)

        assert (webhook.host, webhook.url) == (host, url)

    async def test_the_next_that_becomes_due_is_known(self, bench, outbox):
        assert await outbox.due_in_s() is None
        await ended_job(bench.database, "https://a/hooks", operator=True)
        assert await outbox.due_in_s() is None, "what is due now waits for room, not for its time"
        await bench.database.execute("UPDATE webhook_outbox SET next_try_at = now() + interval '1 hour'")
        await bench.database.execute(
            "UPDATE webhook_outbox SET next_try_at = now() + interval '1 minute' WHERE target = 'job'"
        )

        due_in_s = await outbox.due_in_s()

        assert due_in_s is not None
        assert 0 < due_in_s <= 60

    async def test_many_senders_that_claim_at_once_get_each_webhook_once(self, database, outbox):
        put = [await webhook_of(database, f"https://{number % 5}/hooks") for number in range(50)]

        claimed = await asyncio.gather(*(outbox.claim(replace(ALL, in_all=7), lease_s=60) for _ in range(8)))
        rest = await outbox.claim(ALL, lease_s=60)

        ids = [webhook.id for webhooks in [*claimed, rest] for webhook in webhooks]
        assert sorted(ids) == sorted(put)
