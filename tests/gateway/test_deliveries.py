"""Webhook deliveries as operators see them."""

from datetime import timedelta
from uuid import uuid4

import pytest

from ourvidz_gateway.deliveries import Deliveries, DeliveryFilter, DeliveryState
from ourvidz_gateway.errors import DeliveryInProgress, DeliveryNotFound, InvalidRequest
from ourvidz_gateway.outbox import LeasedWebhook, Outbox
from support.ended_jobs import ALL, ended_job, webhook_of

OPERATOR_URL = "http://operator.internal/hooks"
JOB_URL = "https://hooks.example.com/?key=k"
DAY_S = 24 * 3600.0


@pytest.fixture
def deliveries(database) -> Deliveries:
    return Deliveries(database, operator_url=OPERATOR_URL)


@pytest.fixture
def outbox(database) -> Outbox:
    return Outbox(database)


async def leased(outbox: Outbox) -> LeasedWebhook:
    [webhook] = await outbox.claim(ALL, lease_s=60)
    return webhook


async def fail(outbox: Outbox, webhook: LeasedWebhook, *, for_good: bool = False) -> None:
    await outbox.failed(
        webhook,
        error="its server answers 500",
        http_status=500,
        for_good=for_good,
        delay_s=60,
        give_up_after_s=DAY_S,
    )


async def listed(deliveries: Deliveries, page_size: int = 100, **where):
    found, _ = await deliveries.page(DeliveryFilter(**where), page_size=page_size, page_token=None)
    return found


async def test_a_delivery_tells_where_it_stands(database, deliveries, outbox):
    job_id, [webhook_id] = await ended_job(database, JOB_URL)

    [new] = await listed(deliveries)
    assert (new.id, new.job_id, new.user_id, new.url) == (webhook_id, job_id, "alice", JOB_URL)
    assert (new.state, new.attempt_count, new.last_http_status, new.last_error) == (DeliveryState.PENDING, 0, None, "")
    assert (new.last_attempt_at, new.next_attempt_at) == (None, new.created_at)

    await fail(outbox, await leased(outbox))
    [failing] = await listed(deliveries)
    assert (failing.state, failing.attempt_count) == (DeliveryState.PENDING, 1)
    assert (failing.last_http_status, failing.last_error) == (500, "its server answers 500")
    assert failing.next_attempt_at - failing.last_attempt_at >= timedelta(seconds=60)


async def test_what_has_ended_has_no_next_attempt(database, deliveries, outbox):
    taken = await webhook_of(database)
    await outbox.delivered(await leased(outbox), http_status=204)
    given_up = await webhook_of(database)
    await fail(outbox, await leased(outbox), for_good=True)

    found = {each.id: each for each in await listed(deliveries)}

    assert (found[taken].state, found[taken].last_http_status) == (DeliveryState.DELIVERED, 204)
    assert (found[given_up].state, found[given_up].last_http_status) == (DeliveryState.FAILED, 500)
    assert {each.next_attempt_at for each in found.values()} == {None}


async def test_the_operators_own_go_where_the_setting_says_now(database, deliveries):
    await webhook_of(database)

    assert [each.url for each in await listed(deliveries)] == [OPERATOR_URL]
    assert [each.url for each in await listed(Deliveries(database, operator_url=None))] == [""]


async def test_pages_go_from_the_newest_to_the_oldest_without_gap(database, deliveries):
    put = [await webhook_of(database) for _ in range(5)]

    found, token = [], None
    while True:
        page, token = await deliveries.page(DeliveryFilter(), page_size=2, page_token=token)
        assert len(page) <= 2
        found += [each.id for each in page]
        if token is None:
            break

    assert found == put[::-1]


async def test_a_list_shows_what_its_filters_ask_for(database, deliveries, outbox):
    await webhook_of(database)
    await outbox.delivered(await leased(outbox), http_status=200)
    await webhook_of(database, user="bob")
    await fail(outbox, await leased(outbox), for_good=True)
    job_id, both = await ended_job(database, JOB_URL, operator=True, user="carol")

    assert [each.user_id for each in await listed(deliveries, state=DeliveryState.DELIVERED)] == ["alice"]
    assert [each.user_id for each in await listed(deliveries, state=DeliveryState.FAILED)] == ["bob"]
    assert {each.id for each in await listed(deliveries, state=DeliveryState.PENDING)} == set(both)
    assert {each.id for each in await listed(deliveries, job_id=job_id)} == set(both)
    assert {each.id for each in await listed(deliveries, user_id="carol")} == set(both)
    assert await listed(deliveries, user_id="bob", state=DeliveryState.DELIVERED) == []


@pytest.mark.parametrize("size", [0, 101])
async def test_a_bad_page_size_is_refused(deliveries, size):
    with pytest.raises(InvalidRequest):
        await deliveries.page(DeliveryFilter(), page_size=size, page_token=None)


async def test_a_bad_page_token_is_refused(deliveries):
    with pytest.raises(InvalidRequest):
        await deliveries.page(DeliveryFilter(), page_size=1, page_token="nonsense")


async def test_what_was_given_up_starts_anew_with_a_day_of_its_own_and_short_pauses(database, deliveries, outbox):
    webhook_id = await webhook_of(database)
    for _ in range(3):
        await fail(outbox, await leased(outbox))
        await database.execute("UPDATE webhook_outbox SET next_try_at = now()")
    await database.execute("UPDATE webhook_outbox SET created_at = created_at - interval '2 days'")
    await fail(outbox, await leased(outbox))
    assert [each.state for each in await listed(deliveries)] == [DeliveryState.FAILED]

    again = await deliveries.retry(webhook_id)

    assert (again.id, again.state, again.attempt_count) == (webhook_id, DeliveryState.PENDING, 4)
    webhook = await leased(outbox)
    assert (webhook.id, webhook.tries) == (webhook_id, 1)
    await fail(outbox, webhook)
    [stands] = await listed(deliveries)
    assert (stands.state, stands.attempt_count) == (DeliveryState.PENDING, 5)


async def test_what_was_delivered_can_be_sent_again(database, deliveries, outbox):
    webhook_id = await webhook_of(database)
    await outbox.delivered(await leased(outbox), http_status=200)

    again = await deliveries.retry(webhook_id)

    assert again.state is DeliveryState.PENDING
    assert (await leased(outbox)).id == webhook_id


async def test_what_waits_for_its_next_try_is_sent_at_once(database, deliveries, outbox):
    webhook_id = await webhook_of(database)
    await fail(outbox, await leased(outbox))
    assert await outbox.claim(ALL, lease_s=60) == []

    await deliveries.retry(webhook_id)

    assert (await leased(outbox)).id == webhook_id


async def test_what_is_being_sent_is_left_alone(database, deliveries, outbox):
    webhook_id = await webhook_of(database)
    webhook = await leased(outbox)

    with pytest.raises(DeliveryInProgress) as caught:
        await deliveries.retry(webhook_id)

    assert caught.value.retry_after_s
    await outbox.delivered(webhook, http_status=200)
    assert [each.state for each in await listed(deliveries)] == [DeliveryState.DELIVERED]


async def test_what_is_not_there_is_not_found(deliveries):
    with pytest.raises(DeliveryNotFound):
        await deliveries.retry(uuid4())
