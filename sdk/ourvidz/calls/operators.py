"""The calls of AdminService."""

from __future__ import annotations

import uuid

from ourvidz.api.admin.v1 import admin_pb2
from ourvidz.api.admin.v1.admin_pb2_grpc import AdminServiceStub
from ourvidz.calls.call import Call
from ourvidz.calls.messages import optional_of, time_of
from ourvidz.credits import Credits
from ourvidz.deliveries import Delivery, DeliveryState
from ourvidz.errors import InvalidRequest
from ourvidz.pages import Page
from ourvidz.quarantine import QuarantinedJob


def grant_credits(user_id: str, amount: int, note: str, request_id: str | None) -> Call[Credits]:
    """Add credits to a user's account, or take some away. Raises `InvalidRequest` for what no message can say."""
    try:
        request = admin_pb2.GrantCreditsRequest(
            user_id=user_id,
            amount=amount,
            note=note,
            # Drawn here, so that gRPC may send the same request again without a second grant.
            request_id=request_id or str(uuid.uuid4()),
        )
    except ValueError as error:
        raise InvalidRequest(str(error)) from error
    return Call(AdminServiceStub, "GrantCredits", request, lambda response: _credits(response.credits))


def get_credits(user_id: str) -> Call[Credits]:
    """Return a user's credits."""
    request = admin_pb2.GetCreditsRequest(user_id=user_id)
    return Call(AdminServiceStub, "GetCredits", request, lambda response: _credits(response.credits))


def list_deliveries(
    page_size: int,
    page_token: str | None,
    *,
    state: DeliveryState | None = None,
    job_id: str | None = None,
    user_id: str | None = None,
) -> Call[Page[Delivery]]:
    """Return a page of webhook deliveries."""
    request = admin_pb2.ListDeliveriesRequest(
        page_size=page_size,
        page_token=page_token or "",
        state=admin_pb2.DeliveryState.Value(f"DELIVERY_STATE_{DeliveryState(state).name if state else 'UNSPECIFIED'}"),
        job_id=job_id or "",
        user_id=user_id or "",
    )
    return Call(AdminServiceStub, "ListDeliveries", request, _page_of_deliveries)


def retry_delivery(delivery_id: str) -> Call[Delivery]:
    """Send a webhook again."""
    request = admin_pb2.RetryDeliveryRequest(delivery_id=delivery_id)
    return Call(AdminServiceStub, "RetryDelivery", request, lambda response: delivery_from_message(response.delivery))


def list_quarantined(
    page_size: int, page_token: str | None, *, user_id: str | None = None, include_released: bool = False
) -> Call[Page[QuarantinedJob]]:
    """Return a page of quarantined jobs."""
    request = admin_pb2.ListQuarantinedRequest(
        page_size=page_size, page_token=page_token or "", user_id=user_id or "", include_released=include_released
    )
    return Call(AdminServiceStub, "ListQuarantined", request, _page_of_quarantined)


def release_quarantined(job_id: str) -> Call[str]:
    """Let a quarantined job be tried again; return the id of the new job."""
    request = admin_pb2.ReleaseQuarantinedRequest(job_id=job_id)
    return Call(AdminServiceStub, "ReleaseQuarantined", request, lambda response: str(response.released_job_id))


def delivery_from_message(message: admin_pb2.Delivery) -> Delivery:
    """Return the delivery that the message tells of."""
    state = admin_pb2.DeliveryState.Name(message.state)
    return Delivery(
        id=message.id,
        job_id=message.job_id,
        user_id=message.user_id,
        url=message.url,
        state=DeliveryState(state.removeprefix("DELIVERY_STATE_").lower()),
        attempt_count=message.attempt_count,
        last_http_status=optional_of(message, "last_http_status"),
        last_error=message.last_error or None,
        created_at=time_of(message, "create_time"),
        last_attempt_at=time_of(message, "last_attempt_time"),
        next_attempt_at=time_of(message, "next_attempt_time"),
    )


def _credits(message: admin_pb2.Credits) -> Credits:
    return Credits(message.available, message.reserved)


def _page_of_deliveries(response: admin_pb2.ListDeliveriesResponse) -> Page[Delivery]:
    return Page(tuple(delivery_from_message(each) for each in response.deliveries), response.next_page_token or None)


def _page_of_quarantined(response: admin_pb2.ListQuarantinedResponse) -> Page[QuarantinedJob]:
    jobs = tuple(
        QuarantinedJob(
            job_id=message.job_id,
            user_id=message.user_id,
            job_type=message.job_type,
            attempt_count=message.attempt_count,
            error_message=message.error_message,
            renderers=tuple(message.renderers),
            quarantined_at=time_of(message, "quarantine_time"),
            released_job_id=message.released_job_id or None,
        )
        for message in response.jobs
    )
    return Page(jobs, response.next_page_token or None)
