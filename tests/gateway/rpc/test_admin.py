"""What operators do over gRPC, on a real database."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from ourvidz.api.admin.v1 import admin_pb2, admin_pb2_grpc
from ourvidz_gateway.outbox import Outbox
from ourvidz_gateway.rpc import SERVICES
from support import fronts
from support.ended_jobs import ALL, ended_job, webhook_of
from support.operators import NO_IDS, OPERATOR, OPERATOR_URL, UNKNOWN, front_of, refused, serving


@pytest.fixture
async def stub(tmp_path: Path, database) -> AsyncIterator[admin_pb2_grpc.AdminServiceStub]:
    async with serving(front_of(tmp_path / "objects", database)) as stub:
        yield stub


def every_call(stub, metadata):
    """A call of each method of the contract, some of which would be refused for their content, too."""
    requests = {
        "GrantCredits": admin_pb2.GrantCreditsRequest(user_id="alice", amount=1),
        "GetCredits": admin_pb2.GetCreditsRequest(user_id="alice"),
        "ListDeliveries": admin_pb2.ListDeliveriesRequest(page_size=-1),
        "RetryDelivery": admin_pb2.RetryDeliveryRequest(delivery_id=UNKNOWN),
        "ListQuarantined": admin_pb2.ListQuarantinedRequest(page_size=-1),
        "ReleaseQuarantined": admin_pb2.ReleaseQuarantinedRequest(job_id=UNKNOWN),
    }
    methods = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name
    return [getattr(stub, name)(requests[name], metadata=metadata) for name in methods]


@pytest.mark.parametrize(
    "claims", [{}, {"role": "authenticated"}, {"role": "SERVICE_ROLE"}, {"role": ["service_role"]}]
)
async def test_a_user_may_do_none_of_it(stub, bench, claims):
    """Not even learn whether something is there or a request is well-formed."""
    metadata = (("authorization", f"Bearer {fronts.token('alice', **claims)}"),)

    for call in every_call(stub, metadata):
        error = await refused(call)
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert error.fields == ()
    assert await bench.value("SELECT count(*) FROM credit_ledger") == 0


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer nonsense"),),
        (("authorization", f"Bearer {fronts.token('olga', role='service_role', secret='x' * 32)}"),),
    ],
    ids=["none", "nonsense", "forged"],
)
async def test_without_a_valid_token_nothing_is_answered(stub, metadata):
    for call in every_call(stub, metadata):
        error = await refused(call)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


def test_the_service_is_registered_with_health_and_reflection():
    assert "ourvidz.api.admin.v1.AdminService" in SERVICES


class TestCredits:
    async def grant(self, stub, amount: int = 5, user_id: str = "alice", **fields):
        request = admin_pb2.GrantCreditsRequest(user_id=user_id, amount=amount, **fields)
        return (await stub.GrantCredits(request, metadata=OPERATOR)).credits

    async def test_credits_are_added_taken_away_and_told(self, stub):
        before = (await stub.GetCredits(admin_pb2.GetCreditsRequest(user_id="alice"), metadata=OPERATOR)).credits
        added = await self.grant(stub, 50)
        taken = await self.grant(stub, -20)

        assert (before.user_id, before.available, before.reserved) == ("alice", 1000, 0)
        assert (added.available, taken.available) == (1050, 1030)
        told = (await stub.GetCredits(admin_pb2.GetCreditsRequest(user_id="alice"), metadata=OPERATOR)).credits
        assert told == taken

    async def test_the_ledger_knows_why_and_by_whom(self, stub, bench):
        await self.grant(stub, 50, note="sorry for\nthe outage", request_id="r1")

        row = await bench.database.fetchrow("SELECT * FROM credit_ledger WHERE request_id = 'r1'")
        assert (row["amount"], row["note"], row["granted_by"]) == (50, "sorry for\nthe outage", "olga")

    async def test_one_request_id_grants_once(self, stub):
        granted = await asyncio.gather(*(self.grant(stub, 50, request_id="r1") for _ in range(5)))

        assert {balance.available for balance in granted} == {1050}
        error = await refused(self.grant(stub, 51, request_id="r1"))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")

    async def test_no_request_id_is_no_name_of_a_grant(self, stub):
        await self.grant(stub, 1, request_id="")

        assert (await self.grant(stub, 1, request_id="")).available == 1002

    async def test_more_than_there_is_can_not_be_taken_away(self, stub):
        error = await refused(self.grant(stub, -1001))

        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS")

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"amount": 0}, "amount"),
            ({"amount": 10**9 + 1}, "amount"),
            ({"amount": -(10**9) - 1}, "amount"),
            ({"amount": 2**63 - 1}, "amount"),
            ({"user_id": ""}, "user_id"),
            ({"user_id": "a" * 201}, "user_id"),
            ({"user_id": "a\nb"}, "user_id"),
            ({"note": "n" * 501}, "note"),
            ({"note": "a\0"}, "note"),
            ({"request_id": "r" * 201}, "request_id"),
            ({"request_id": "a\0"}, "request_id"),
        ],
    )
    async def test_a_bad_field_is_named(self, stub, bench, fields, field):
        error = await refused(self.grant(stub, **fields))

        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert [violation.field for violation in error.fields] == [field]
        assert await bench.value("SELECT count(*) FROM credit_ledger") == 0

    async def test_the_largest_values_are_taken(self, stub):
        balance = await self.grant(stub, 10**9, "u" * 200, note="n" * 500, request_id="r" * 200)

        assert balance.available == 10**9 + 1000

    @pytest.mark.parametrize("user_id", ["", "a" * 201, "a\0"])
    async def test_credits_of_what_can_be_no_user_are_not_told(self, stub, user_id):
        error = await refused(stub.GetCredits(admin_pb2.GetCreditsRequest(user_id=user_id), metadata=OPERATOR))

        assert (error.code, [each.field for each in error.fields]) == (grpc.StatusCode.INVALID_ARGUMENT, ["user_id"])


class TestDeliveries:
    async def listed(self, stub, **fields) -> admin_pb2.ListDeliveriesResponse:
        return await stub.ListDeliveries(admin_pb2.ListDeliveriesRequest(**fields), metadata=OPERATOR)

    async def retry(self, stub, delivery_id: str) -> admin_pb2.Delivery:
        request = admin_pb2.RetryDeliveryRequest(delivery_id=delivery_id)
        return (await stub.RetryDelivery(request, metadata=OPERATOR)).delivery

    async def test_a_delivery_is_shown_with_all_that_is_known(self, stub, database):
        job_id, [webhook_id] = await ended_job(database, operator=True)
        outbox = Outbox(database)
        [webhook] = await outbox.claim(ALL, lease_s=60)
        await outbox.failed(
            webhook,
            error="its server answers 503",
            http_status=503,
            for_good=False,
            delay_s=60,
            give_up_after_s=86_400,
        )

        [delivery] = (await self.listed(stub)).deliveries

        assert (delivery.id, delivery.job_id, delivery.user_id) == (str(webhook_id), str(job_id), "alice")
        assert (delivery.url, delivery.state) == (OPERATOR_URL, admin_pb2.DELIVERY_STATE_PENDING)
        assert (delivery.attempt_count, delivery.last_http_status) == (1, 503)
        assert delivery.last_error == "its server answers 503"
        tried = delivery.last_attempt_time.ToDatetime(UTC)
        assert delivery.create_time.ToDatetime(UTC) <= tried <= datetime.now(UTC)
        assert 59 < (delivery.next_attempt_time.ToDatetime(UTC) - tried).total_seconds() < 120

    async def test_what_is_not_known_is_absent(self, stub, database):
        await webhook_of(database)
        [delivery] = (await self.listed(stub)).deliveries
        assert not delivery.HasField("last_http_status")
        assert not delivery.HasField("last_attempt_time")
        assert delivery.HasField("next_attempt_time")

        [webhook] = await Outbox(database).claim(ALL, lease_s=60)
        await Outbox(database).delivered(webhook, http_status=200)
        [delivery] = (await self.listed(stub)).deliveries
        assert delivery.state == admin_pb2.DELIVERY_STATE_DELIVERED
        assert not delivery.HasField("next_attempt_time")

    async def test_lists_are_filtered_and_paged(self, stub, database):
        job_id, _ = await ended_job(database, operator=True, user="bob")
        made = [str(await webhook_of(database)) for _ in range(3)]

        first = await self.listed(stub, user_id="alice", page_size=2)
        rest = await self.listed(stub, user_id="alice", page_size=2, page_token=first.next_page_token)
        of_bob = await self.listed(stub, job_id=str(job_id), state=admin_pb2.DELIVERY_STATE_PENDING)

        assert [each.id for each in [*first.deliveries, *rest.deliveries]] == made[::-1]
        assert rest.next_page_token == ""
        assert [each.user_id for each in of_bob.deliveries] == ["bob"]
        assert list((await self.listed(stub, state=admin_pb2.DELIVERY_STATE_FAILED)).deliveries) == []

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"page_size": -1}, "page_size"),
            ({"page_size": 101}, "page_size"),
            ({"page_token": "nonsense"}, "page_token"),
            ({"state": 99}, "state"),
            ({"job_id": "nonsense"}, "job_id"),
            ({"user_id": "a\0"}, "user_id"),
            ({"user_id": "a" * 201}, "user_id"),
        ],
    )
    async def test_a_bad_filter_is_named(self, stub, fields, field):
        error = await refused(self.listed(stub, **fields))

        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert [violation.field for violation in error.fields] == [field]

    async def test_what_was_given_up_is_pending_again(self, stub, database):
        webhook_id = await webhook_of(database)
        await database.execute("UPDATE webhook_outbox SET next_try_at = NULL, given_up_at = now(), tries = 20")
        [failed] = (await self.listed(stub, state=admin_pb2.DELIVERY_STATE_FAILED)).deliveries

        again = await self.retry(stub, failed.id)

        assert (again.id, again.state) == (str(webhook_id), admin_pb2.DELIVERY_STATE_PENDING)
        assert again.HasField("next_attempt_time")

    async def test_what_is_being_sent_is_left_alone(self, stub, database):
        webhook_id = await webhook_of(database)
        await Outbox(database).claim(ALL, lease_s=60)

        error = await refused(self.retry(stub, str(webhook_id)))

        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DELIVERY_IN_PROGRESS")
        assert error.retry_after_s == 30

    @pytest.mark.parametrize("delivery_id", NO_IDS)
    async def test_what_is_not_there_is_not_found(self, stub, delivery_id):
        error = await refused(self.retry(stub, delivery_id))

        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "DELIVERY_NOT_FOUND")
