"""How senders of webhooks share their work and their room, and when they try again."""

import asyncio
from collections import Counter
from dataclasses import replace

from ourvidz_gateway.database import open_database
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.webhooks import WebhookPolicy
from support.ended_jobs import ended_job, webhook_of
from support.receiver import DROP, HANG, receiver
from support.senders import QUICK, running, sender
from support.web_host import page


async def test_a_sender_is_woken_rather_than_waiting_for_its_sweep(database, make, hooks, monkeypatch):
    mine = make(hooks, policy=replace(QUICK, sweep_s=3600))
    looked, look = asyncio.Event(), mine._outbox.due_in_s

    async def watched():
        due_in_s = await look()
        looked.set()
        return due_in_s

    monkeypatch.setattr(mine._outbox, "due_in_s", watched)
    async with running(mine):
        await looked.wait()
        await ended_job(database, hooks.url)
        mine.wake()
        await hooks.has(1)


async def test_a_receiver_that_hangs_does_not_hold_up_another(database, make, hooks):
    policy = replace(QUICK, at_once=3, at_once_for_a_host=3, time_limit_s=300, lease_s=600)
    async with receiver(otherwise=HANG) as dead:
        for _ in range(10):
            await webhook_of(database, dead.url)
        for _ in range(10):
            await webhook_of(database, hooks.url)
        async with running(make(dead, hooks, policy=policy)):
            await hooks.has(10)
            assert len(dead.received) == 1


async def test_a_receiver_that_went_silent_gets_one_try_at_a_time(database, bench, make):
    policy = replace(QUICK, at_once_for_a_host=3, time_limit_s=300, lease_s=600)
    async with receiver(page(), page(), page(), page(), DROP, DROP, DROP, otherwise=HANG) as fading:
        for _ in range(4):
            await webhook_of(database, fading.url)
        mine = make(fading, policy=policy)
        async with running(mine):
            await bench.until("(SELECT count(*) = 4 FROM webhook_outbox WHERE delivered_at IS NOT NULL)")
            for _ in range(3):
                await webhook_of(database, fading.url)
            await fading.has(8)
            # One hangs; the two others are due, and stay so.
            left = "next_try_at <= now() AND leased_until <= now()"
            await bench.until(f"(SELECT count(*) = 2 FROM webhook_outbox WHERE {left})")
            assert await mine._claim() == []


async def test_silent_receivers_leave_room_for_those_that_answer(database, bench, make, hooks):
    policy = replace(QUICK, at_once=3, at_once_for_silent_hosts=2, time_limit_s=300, lease_s=600)
    async with (
        receiver(DROP, otherwise=HANG) as one,
        receiver(DROP, otherwise=HANG) as two,
        receiver(DROP, otherwise=HANG) as three,
    ):
        silent = [one, two, three]
        mine = make(*silent, hooks, policy=policy)
        async with running(mine):
            for each in silent:
                await webhook_of(database, each.url)
            await bench.until("(SELECT count(*) >= 3 FROM webhook_outbox WHERE last_error IS NOT NULL)")
            # Of the three that are due again, one waits.
            await bench.until("(SELECT count(*) = 2 FROM webhook_outbox WHERE leased_until > now())")
            await webhook_of(database, hooks.url)
            await hooks.has(1)
            assert sum(len(each.received) for each in silent) == 5


async def test_two_senders_deliver_each_once(dsn, database, bench, make, store, hooks):
    put = [str(await webhook_of(database, hooks.url)) for _ in range(60)]
    async with open_database(dsn) as other, running(make(hooks), sender(other, store, hooks)):
        await bench.until("(SELECT count(*) = 60 FROM webhook_outbox WHERE delivered_at IS NOT NULL)")

    assert Counter(each.id for each in hooks.received) == Counter(put)


async def test_what_a_dead_gateway_was_sending_is_sent_by_another_after_the_lease(dsn, database, bench, make, store):
    async with receiver(HANG) as hooks:
        webhook_id = await webhook_of(database, hooks.url)
        async with open_database(dsn) as of_dead, running(sender(of_dead, store, hooks)):
            await hooks.has(1)
            # It dies without a last word: nothing that it would still say reaches the database.
            of_dead._pool.terminate()
        other = make(hooks)
        assert await other._claim() == []
        await database.execute("UPDATE webhook_outbox SET leased_until = now()")
        async with running(other):
            await hooks.has(2)
            await bench.until("(SELECT delivered_at IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    assert [each.id for each in hooks.received] == [str(webhook_id)] * 2


async def test_a_gateway_that_leaves_hands_over_what_it_was_sending(database, bench, make):
    async with receiver(HANG) as hooks:
        webhook_id = await webhook_of(database, hooks.url)
        async with running(make(hooks)):
            await hooks.has(1)
        async with running(make(hooks)):
            await hooks.has(2)

    assert [each.id for each in hooks.received] == [str(webhook_id)] * 2


async def test_an_outage_of_the_database_ends_no_sender(database, bench, make, hooks, monkeypatch):
    away = asyncio.Event()
    fetch = database.fetch

    async def failing(*args):
        if not away.is_set():
            away.set()
            raise DatabaseUnavailable("away")
        return await fetch(*args)

    monkeypatch.setattr(database, "fetch", failing)
    async with running(make(hooks)):
        await away.wait()
        await webhook_of(database, hooks.url)
        await hooks.has(1)


async def test_a_delivery_is_recorded_though_the_database_is_away_right_then(database, bench, make, hooks, monkeypatch):
    webhook_id = await webhook_of(database, hooks.url)
    execute, failures = database.execute, 2

    async def failing(*args):
        nonlocal failures
        if failures:
            failures -= 1
            raise DatabaseUnavailable("away")
        await execute(*args)

    monkeypatch.setattr(database, "execute", failing)
    async with running(make(hooks)):
        await bench.until("(SELECT delivered_at IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    assert len(hooks.received) == 1


async def test_a_gateway_that_leaves_still_says_what_was_delivered(database, bench, make, hooks, monkeypatch):
    webhook_id = await webhook_of(database, hooks.url)
    execute, tried = database.execute, asyncio.Event()

    async def failing_once(*args):
        if not tried.is_set():
            tried.set()
            raise DatabaseUnavailable("away")
        await execute(*args)

    monkeypatch.setattr(database, "execute", failing_once)
    async with running(make(hooks)):
        await tried.wait()

    assert await bench.value("SELECT delivered_at IS NOT NULL FROM webhook_outbox WHERE id = $1", webhook_id)


class TestPolicy:
    def test_pauses_grow_from_seconds_to_hours(self):
        policy = WebhookPolicy(jitter=0)

        pauses = [policy.delay_s(tries, None) for tries in range(1, 14)]

        assert pauses[:3] == [5, 10, 20]
        assert pauses[-1] == 4 * 3600
        assert pauses == sorted(pauses)
        assert policy.delay_s(10**6, None) == 4 * 3600

    def test_what_failed_together_does_not_return_together(self):
        pauses = {WebhookPolicy().delay_s(3, None) for _ in range(20)}

        assert len(pauses) > 1
        assert all(16 <= pause <= 24 for pause in pauses)

    def test_a_receiver_can_ask_for_a_longer_pause_but_not_for_a_shorter_or_an_endless_one(self):
        policy = WebhookPolicy(jitter=0)

        assert policy.delay_s(1, 60.0) == 60
        assert policy.delay_s(1, 1.0) == 5
        assert policy.delay_s(1, -60.0) == 5
        assert policy.delay_s(1, float("inf")) == 4 * 3600
