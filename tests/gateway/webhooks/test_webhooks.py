"""What receivers of webhooks get, and what becomes of it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import structlog
from fastapi import FastAPI

from ourvidz_gateway.rest.objects import objects_router
from ourvidz_gateway.webhooks import WebhookPolicy
from support import fronts
from support.ended_jobs import BUCKET, ended_job, webhook_of
from support.jobs import Bench
from support.receiver import DROP, receiver
from support.senders import QUICK, SECRET, checked, running
from support.web_host import page, redirect


async def row(bench: Bench, webhook_id):
    return await bench.database.fetchrow("SELECT * FROM webhook_outbox WHERE id = $1", webhook_id)


async def test_a_receiver_that_fails_twice_gets_it_at_the_third_try_under_one_id_with_urls_that_open(
    database, bench, make, store
):
    rest = FastAPI()
    rest.include_router(objects_router(store))
    policy = WebhookPolicy(first_delay_s=1.0, jitter=0)
    async with receiver(page(status="500 Oops"), DROP) as hooks:
        job_id, [webhook_id] = await ended_job(database, hooks.url, store=store, outputs=3)
        async with running(make(hooks, policy=policy)):
            tries = await hooks.has(3)
            await bench.until("(SELECT delivered_at IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    assert [each.id for each in tries] == [str(webhook_id)] * 3
    assert [checked(each)["job_id"] for each in tries] == [str(job_id)] * 3
    assert len({each.headers["webhook-timestamp"] for each in tries}) == 3
    assert len({each.headers["webhook-signature"] for each in tries}) == 3
    urls = tries[2].job["assets"]
    assert len(urls) == 3
    assert not set(urls) & set(tries[0].job["assets"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(rest), base_url=fronts.PUBLIC_URL) as client:
        assert [(await client.get(url)).content for url in urls] == [b"png"] * 3
    stands = await row(bench, webhook_id)
    assert (stands["tries"], stands["last_http_status"], stands["last_error"]) == (3, 204, None)
    assert stands["next_try_at"] is None


async def test_a_completed_job_is_told_as_users_see_it(database, make, hooks, store):
    job_id, _ = await ended_job(database, hooks.url, store=store, outputs=1)
    async with running(make(hooks)):
        [told] = await hooks.has(1)

    body = checked(told)
    assert list(body) == ["job_id", "status", "assets", "metadata"]
    assert (body["job_id"], body["status"]) == (str(job_id), "completed")
    assert body["metadata"] == {"prompt": "a fox", "mine": "füchse", "seed": 7, "num_images": 1, "model": "painter"}
    [url] = body["assets"]
    token = parse_qs(urlsplit(url).query)["token"][0]
    info, _ = await store.open_signed(BUCKET, f"alice/{job_id}/1/0.png", token)
    assert info.size_bytes == 3
    assert told.headers["content-type"] == "application/json"
    assert told.headers["user-agent"] == "OurVidz"
    assert told.headers["host"] == hooks.host


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_a_job_that_came_to_nothing_is_told_with_the_reason(database, make, hooks, state):
    await ended_job(database, hooks.url, state=state, error_message="The renderer died.")
    async with running(make(hooks)):
        [told] = await hooks.has(1)

    body = checked(told)
    assert (body["status"], body["assets"], body["error_message"]) == (state, [], "The renderer died.")


async def test_the_operator_is_told_at_the_url_of_this_moment_though_it_is_private_and_plain(database, make, hooks):
    job_id, webhooks = await ended_job(database, operator=True)
    async with running(make(webhook_url=hooks.url, allow_private_fetch=False)):
        [told] = await hooks.has(1)

    assert checked(told)["job_id"] == str(job_id)
    assert [told.id] == [str(each) for each in webhooks]


async def test_both_are_told_each_under_an_id_of_its_own(database, make, hooks):
    async with receiver() as operators:
        await ended_job(database, hooks.url, operator=True)
        async with running(make(hooks, webhook_url=operators.url)):
            [to_job], [to_operator] = await hooks.has(1), await operators.has(1)

    assert to_job.id != to_operator.id
    assert checked(to_job) == checked(to_operator)


async def test_a_job_without_webhook_puts_nothing_in_the_outbox(database, bench):
    _, webhooks = await ended_job(database)

    assert webhooks == []


async def test_after_a_day_it_is_given_up(database, bench, make):
    async with receiver(otherwise=page(status="503 Busy")) as hooks:
        webhook_id = await webhook_of(database, hooks.url)
        async with running(make(hooks)):
            await hooks.has(2)
            await database.execute("UPDATE webhook_outbox SET created_at = created_at - interval '1 day'")
            await bench.until("(SELECT given_up_at IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    stands = await row(bench, webhook_id)
    assert (stands["next_try_at"], stands["last_http_status"]) == (None, 503)
    assert stands["last_error"] == "its server answers 503"


async def test_a_receiver_that_is_gone_is_not_asked_again(database, bench, make):
    async with receiver(page(status="410 Gone")) as hooks:
        webhook_id = await webhook_of(database, hooks.url)
        async with running(make(hooks)):
            await bench.until("(SELECT given_up_at IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    assert len(hooks.received) == 1


@pytest.mark.parametrize("when", ["soon", "Mon, 99 Jan 2030 00:00:00 GMT", "Mon, 01 Jan 99999999999 00:00:00 GMT"])
async def test_what_is_answered_counts_whatever_is_said_of_the_time(database, bench, make, when):
    async with receiver(page(status="503 Away", Retry_After=when)) as hooks:
        webhook_id = await webhook_of(database, hooks.url)
        async with running(make(hooks)):
            await bench.until("(SELECT last_error IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    stands = await row(bench, webhook_id)
    assert (stands["last_http_status"], stands["last_error"]) == (503, "its server answers 503")


async def test_a_redirect_is_a_failure_and_is_not_followed(database, bench, make, hooks):
    async with receiver(otherwise=redirect(hooks.url)) as elsewhere:
        webhook_id = await webhook_of(database, elsewhere.url)
        async with running(make(elsewhere, hooks)):
            await elsewhere.has(2)

    stands = await row(bench, webhook_id)
    assert (stands["last_http_status"], stands["last_error"]) == (302, "its server answers 302")
    assert hooks.received == []


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "299 Whatever"])
async def test_any_2xx_is_a_success(database, bench, make, status):
    async with receiver(page(status=status)) as hooks:
        webhook_id = await webhook_of(database, hooks.url)
        async with running(make(hooks)):
            await bench.until("(SELECT delivered_at IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    assert (await row(bench, webhook_id))["last_http_status"] == int(status[:3])


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_receiver_says_when_it_wants_to_be_asked_again(database, bench, make, form):
    later = "100" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=110), usegmt=True)
    policy = replace(QUICK, max_delay_s=3600)
    async with receiver(page(status="429 Slow down", Retry_After=later)) as hooks:
        webhook_id = await webhook_of(database, hooks.url)
        async with running(make(hooks, policy=policy)):
            await bench.until("(SELECT last_error IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    stands = await row(bench, webhook_id)
    assert timedelta(seconds=60) < stands["next_try_at"] - stands["last_try_at"] < timedelta(seconds=600)


async def test_a_host_that_is_no_longer_allowed_is_not_called(database, bench, make, hooks):
    webhook_id = await webhook_of(database, hooks.url)
    async with running(make()):
        await bench.until("(SELECT tries >= 2 FROM webhook_outbox WHERE id = $1)", webhook_id)

    assert "is not allowed" in (await row(bench, webhook_id))["last_error"]
    assert hooks.received == []


async def test_a_name_that_leads_to_a_private_address_is_not_called(database, bench, make, hooks):
    async def resolve(*_):
        return ["127.0.0.1"]

    url = f"https://hooks.example.com:{hooks.port}/"
    webhook_id = await webhook_of(database, url)
    mine = make(webhook_hosts=f"hooks.example.com:{hooks.port}", allow_private_fetch=False, resolve=resolve)
    async with running(mine):
        await bench.until("(SELECT last_error IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    assert (await row(bench, webhook_id))["last_error"] == "its host is not at a public address"
    assert hooks.received == []


async def test_plain_http_is_not_called_where_private_addresses_are_not(database, bench, make, hooks):
    webhook_id = await webhook_of(database, hooks.url)
    async with running(make(hooks, allow_private_fetch=False)):
        await bench.until("(SELECT last_error IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    assert (await row(bench, webhook_id))["last_error"].startswith("it must start with https://")
    assert hooks.received == []


async def test_what_nobody_has_a_url_for_waits(database, bench, make):
    webhook_id = await webhook_of(database)
    async with running(make()):
        await bench.until("(SELECT tries >= 2 FROM webhook_outbox WHERE id = $1)", webhook_id)

    assert (await row(bench, webhook_id))["last_error"] == "OURVIDZ_WEBHOOK_URL is not set any more"


async def test_without_a_secret_nothing_is_sent(database, bench, make, hooks):
    webhook_id = await webhook_of(database, hooks.url)
    async with running(make(webhook_secret=None, webhook_hosts="")):
        await bench.until("(SELECT last_error IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    assert (await row(bench, webhook_id))["last_error"] == "OURVIDZ_WEBHOOK_SECRET is not set any more"
    assert hooks.received == []


async def test_a_job_whose_record_is_gone_is_given_up(database, bench, make, hooks):
    job_id, [webhook_id] = await ended_job(database, hooks.url)
    await database.execute("DELETE FROM jobs WHERE id = $1", job_id)
    async with running(make(hooks)):
        await bench.until("(SELECT given_up_at IS NOT NULL FROM webhook_outbox WHERE id = $1)", webhook_id)

    assert (await row(bench, webhook_id))["last_error"] == "the job's record is gone"
    assert hooks.received == []


async def test_neither_the_secret_nor_a_url_is_logged(database, bench, make, hooks, caplog):
    caplog.set_level("INFO", logger="ourvidz_gateway")
    with structlog.testing.capture_logs() as lines:
        async with receiver(page(status="500 Oops"), DROP) as failing:
            await webhook_of(database, failing.url)
            await webhook_of(database, hooks.url)
            async with running(make(failing, hooks)):
                await bench.until("(SELECT count(*) = 2 FROM webhook_outbox WHERE delivered_at IS NOT NULL)")

    said = json.dumps(lines, default=str)
    assert "webhook not delivered" in said
    assert "webhook delivered" in said
    for secret in (SECRET, SECRET.removeprefix("whsec_"), "key=k", "v1,"):
        assert secret not in said
