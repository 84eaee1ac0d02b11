from __future__ import annotations

from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ourvidz import AdminClient, Credits, Delivery, DeliveryState, QuarantinedJob
from ourvidz.api.admin.v1 import admin_pb2
from ourvidz.errors import InvalidRequest, JobNotQuarantined, PermissionDenied, Unreachable
from support.scripted_jobs import Failure, ScriptedJobs, job

JOB = job().id


def test_credits_are_granted_once_for_each_request(service: ScriptedJobs, admin: AdminClient):
    answer = admin_pb2.GrantCreditsResponse(credits=admin_pb2.Credits(user_id="ann", available=12, reserved=1))
    service.answer("Admin/GrantCredits", Failure(grpc.StatusCode.UNAVAILABLE))
    service.answer("Admin/GrantCredits", answer)
    service.answer("Admin/GrantCredits", answer)
    assert admin.grant_credits("ann", -3, note="as agreed") == Credits(12, 1)
    admin.grant_credits("ann", 3, request_id="r")
    first, again, other = service.requests("Admin/GrantCredits")
    assert (first.user_id, first.amount, first.note) == ("ann", -3, "as agreed")
    assert first.request_id
    assert (again, other.request_id) == (first, "r")
    assert service.calls[0].metadata["authorization"] == "Bearer o.p.s"


def test_an_amount_that_the_wire_has_no_form_for_is_an_invalid_request(admin: AdminClient):
    with pytest.raises(InvalidRequest):
        admin.grant_credits("ann", 2**70)


def test_a_users_credits_are_told(service: ScriptedJobs, admin: AdminClient):
    service.answer("Admin/GetCredits", admin_pb2.GetCreditsResponse(credits=admin_pb2.Credits(available=2)))
    assert admin.get_credits("ann") == Credits(2, 0)
    assert service.requests("Admin/GetCredits")[0].user_id == "ann"


def test_deliveries_are_listed_with_all_that_is_known(service: ScriptedJobs, admin: AdminClient):
    message = admin_pb2.Delivery(
        id="d", job_id=JOB, user_id="ann", url="https://hooks/x", state=admin_pb2.DELIVERY_STATE_PENDING,
        attempt_count=2, last_http_status=500, last_error="500 Oops", create_time=Timestamp(seconds=1),
        last_attempt_time=Timestamp(seconds=2), next_attempt_time=Timestamp(seconds=3),
    )  # fmt: skip
    bare = admin_pb2.Delivery(id="e", state=admin_pb2.DELIVERY_STATE_DELIVERED)
    service.answer("Admin/ListDeliveries", admin_pb2.ListDeliveriesResponse(deliveries=[message, bare]))
    page = admin.list_deliveries(state=DeliveryState.FAILED, job_id=JOB, user_id="ann", page_size=5)
    at = [datetime.fromtimestamp(seconds, UTC) for seconds in (1, 2, 3)]
    assert page.items == (
        Delivery("d", JOB, "ann", "https://hooks/x", DeliveryState.PENDING, 2, 500, "500 Oops", *at),
        Delivery("e", "", "", "", DeliveryState.DELIVERED, 0, None, None, None, None, None),
    )
    (request,) = service.requests("Admin/ListDeliveries")
    assert (request.state, request.job_id, request.user_id) == (admin_pb2.DELIVERY_STATE_FAILED, JOB, "ann")
    assert request.page_size == 5


def test_a_webhook_is_sent_again_once_for_each_call(service: ScriptedJobs, admin: AdminClient):
    service.answer("Admin/RetryDelivery", Failure(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(Unreachable):
        admin.retry_delivery("d")
    pending = admin_pb2.Delivery(id="d", state=admin_pb2.DELIVERY_STATE_PENDING)
    service.answer("Admin/RetryDelivery", admin_pb2.RetryDeliveryResponse(delivery=pending))
    assert admin.retry_delivery("d").state is DeliveryState.PENDING
    assert [request.delivery_id for request in service.requests("Admin/RetryDelivery")] == ["d", "d"]


def test_quarantined_jobs_are_listed_page_after_page(service: ScriptedJobs, admin: AdminClient):
    message = admin_pb2.QuarantinedJob(
        job_id=JOB, user_id="ann", job_type="video_fast", attempt_count=3, error_message="it died",
        renderers=["a:1", "b:1"], quarantine_time=Timestamp(seconds=1), released_job_id="n",
    )  # fmt: skip
    service.answer("Admin/ListQuarantined", admin_pb2.ListQuarantinedResponse(jobs=[message], next_page_token="t"))
    service.answer("Admin/ListQuarantined", admin_pb2.ListQuarantinedResponse())
    assert list(admin.iter_quarantined(include_released=True, user_id="ann")) == [
        QuarantinedJob(JOB, "ann", "video_fast", 3, "it died", ("a:1", "b:1"), datetime.fromtimestamp(1, UTC), "n")
    ]
    first, second = service.requests("Admin/ListQuarantined")
    assert (first.include_released, first.user_id, first.page_token) == (True, "ann", "")
    assert (second.include_released, second.page_token) == (True, "t")


def test_a_quarantined_job_is_released_as_another(service: ScriptedJobs, admin: AdminClient):
    service.answer("Admin/ReleaseQuarantined", admin_pb2.ReleaseQuarantinedResponse(released_job_id="n"))
    service.answer(
        "Admin/ReleaseQuarantined", Failure(grpc.StatusCode.FAILED_PRECONDITION, "not", "JOB_NOT_QUARANTINED")
    )
    assert admin.release_quarantined(JOB) == "n"
    with pytest.raises(JobNotQuarantined):
        admin.release_quarantined(JOB)


def test_another_role_is_told_so(service: ScriptedJobs, admin: AdminClient):
    service.answer("Admin/GetCredits", Failure(grpc.StatusCode.PERMISSION_DENIED, "no", "PERMISSION_DENIED"))
    with pytest.raises(PermissionDenied):
        admin.get_credits("ann")


def test_the_environment_says_where_and_who(service: ScriptedJobs, environment: None):
    service.answer("Admin/GetCredits", admin_pb2.GetCreditsResponse())
    with AdminClient.from_environment() as client:
        client.get_credits("ann")
    assert service.calls[0].metadata["authorization"] == "Bearer a.b.c"
