"""`ourvidz.api.admin.v1.AdminService`. Errors are raised as they are; the server's interceptor answers for them."""

# ruff: noqa: N802  # the contract names the methods

from __future__ import annotations

from typing import Any
from uuid import UUID

from grpc.aio import ServicerContext

from ourvidz.api.admin.v1 import admin_pb2, admin_pb2_grpc
from ourvidz_gateway.auth import MAX_USER_ID_CHARACTERS, Principal
from ourvidz_gateway.credits import Balance
from ourvidz_gateway.deliveries import Delivery, DeliveryFilter, DeliveryState
from ourvidz_gateway.errors import DeliveryNotFound, InvalidRequest, JobNotFound, PermissionDenied
from ourvidz_gateway.front import Front, parse_job_id
from ourvidz_gateway.pages import DEFAULT_PAGE_SIZE
from ourvidz_gateway.quarantine import QuarantinedJob
from ourvidz_gateway.rpc.caller import caller_of
from ourvidz_gateway.text import is_plain

SERVICE = "ourvidz.api.admin.v1.AdminService"

_STATES = {
    DeliveryState.PENDING: admin_pb2.DELIVERY_STATE_PENDING,
    DeliveryState.DELIVERED: admin_pb2.DELIVERY_STATE_DELIVERED,
    DeliveryState.FAILED: admin_pb2.DELIVERY_STATE_FAILED,
}


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """What operators do, over gRPC. Lives as long as the server; holds nothing of its own."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def GrantCredits(
        self, request: admin_pb2.GrantCreditsRequest, context: ServicerContext[Any, Any]
    ) -> admin_pb2.GrantCreditsResponse:
        """Add credits to a user's account, or take some away."""
        operator = await self._operator(context)
        balance = await self._front.parts.credits.grant(
            _user_id(request.user_id),
            request.amount,
            note=request.note,
            request_id=request.request_id or None,
            granted_by=operator.user_id,
        )
        return admin_pb2.GrantCreditsResponse(credits=_credits_message(balance))

    async def GetCredits(
        self, request: admin_pb2.GetCreditsRequest, context: ServicerContext[Any, Any]
    ) -> admin_pb2.GetCreditsResponse:
        """Return a user's credits."""
        await self._operator(context)
        balance = await self._front.parts.credits.balance(_user_id(request.user_id))
        return admin_pb2.GetCreditsResponse(credits=_credits_message(balance))

    async def ListDeliveries(
        self, request: admin_pb2.ListDeliveriesRequest, context: ServicerContext[Any, Any]
    ) -> admin_pb2.ListDeliveriesResponse:
        """Return a page of webhook deliveries, newest first."""
        await self._operator(context)
        where = DeliveryFilter(
            state=_state(request.state),
            job_id=_job_filter(request.job_id),
            user_id=_user_id(request.user_id) if request.user_id else None,
        )
        deliveries, next_page_token = await self._front.parts.deliveries.page(
            where, page_size=request.page_size or DEFAULT_PAGE_SIZE, page_token=request.page_token or None
        )
        return admin_pb2.ListDeliveriesResponse(
            deliveries=[_delivery_message(delivery) for delivery in deliveries], next_page_token=next_page_token or ""
        )

    async def RetryDelivery(
        self, request: admin_pb2.RetryDeliveryRequest, context: ServicerContext[Any, Any]
    ) -> admin_pb2.RetryDeliveryResponse:
        """Let a webhook be sent again."""
        await self._operator(context)
        delivery = await self._front.parts.deliveries.retry(_delivery_id(request.delivery_id))
        return admin_pb2.RetryDeliveryResponse(delivery=_delivery_message(delivery))

    async def ListQuarantined(
        self, request: admin_pb2.ListQuarantinedRequest, context: ServicerContext[Any, Any]
    ) -> admin_pb2.ListQuarantinedResponse:
        """Return a page of quarantined jobs, newest first."""
        await self._operator(context)
        jobs, next_page_token = await self._front.quarantine.page(
            user_id=_user_id(request.user_id) if request.user_id else None,
            include_released=request.include_released,
            page_size=request.page_size or DEFAULT_PAGE_SIZE,
            page_token=request.page_token or None,
        )
        return admin_pb2.ListQuarantinedResponse(
            jobs=[_quarantined_message(job) for job in jobs], next_page_token=next_page_token or ""
        )

    async def ReleaseQuarantined(
        self, request: admin_pb2.ReleaseQuarantinedRequest, context: ServicerContext[Any, Any]
    ) -> admin_pb2.ReleaseQuarantinedResponse:
        """Let a quarantined job be tried again, as a new one."""
        await self._operator(context)
        job = await self._front.quarantine.release(parse_job_id(request.job_id))
        message = _quarantined_message(job)
        return admin_pb2.ReleaseQuarantinedResponse(job=message, released_job_id=message.released_job_id)

    async def _operator(self, context: ServicerContext[Any, Any]) -> Principal:
        """Return the caller. Raises `PermissionDenied` for a user, before anything of the request is looked at."""
        caller = await caller_of(self._front, context)
        if not caller.is_operator:
            raise PermissionDenied("Only operators of this server may do this.")
        return caller


def _user_id(text: str) -> str:
    if not 1 <= len(text) <= MAX_USER_ID_CHARACTERS or not is_plain(text):
        raise InvalidRequest(
            f"user_id must have 1 to {MAX_USER_ID_CHARACTERS} characters and no control characters.", field="user_id"
        )
    return text


def _state(number: int) -> DeliveryState | None:
    if number == admin_pb2.DELIVERY_STATE_UNSPECIFIED:
        return None
    for state, known in _STATES.items():
        if known == number:
            return state
    raise InvalidRequest(f"There is no delivery state {number}.", field="state")


def _job_filter(text: str) -> UUID | None:
    try:
        return parse_job_id(text) if text else None
    except JobNotFound:
        raise InvalidRequest("job_id must be a job's id.", field="job_id") from None


def _delivery_id(text: str) -> UUID:
    try:
        return parse_job_id(text)  # one form for the ids of everything
    except JobNotFound:
        raise DeliveryNotFound from None


def _credits_message(balance: Balance) -> admin_pb2.Credits:
    return admin_pb2.Credits(user_id=balance.user_id, available=balance.available, reserved=balance.reserved)


def _delivery_message(delivery: Delivery) -> admin_pb2.Delivery:
    message = admin_pb2.Delivery(
        id=str(delivery.id),
        job_id=str(delivery.job_id),
        user_id=delivery.user_id,
        url=delivery.url,
        state=_STATES[delivery.state],
        attempt_count=delivery.attempt_count,
        last_http_status=delivery.last_http_status,
        last_error=delivery.last_error,
    )
    message.create_time.FromDatetime(delivery.created_at)
    if delivery.last_attempt_at is not None:
        message.last_attempt_time.FromDatetime(delivery.last_attempt_at)
    if delivery.next_attempt_at is not None:
        message.next_attempt_time.FromDatetime(delivery.next_attempt_at)
    return message


def _quarantined_message(job: QuarantinedJob) -> admin_pb2.QuarantinedJob:
    message = admin_pb2.QuarantinedJob(
        job_id=str(job.job_id),
        user_id=job.user_id,
        job_type=job.job_type,
        attempt_count=job.attempt_count,
        error_message=job.error_message,
        renderers=job.renderers,
        released_job_id="" if job.released_as is None else str(job.released_as),
    )
    message.quarantine_time.FromDatetime(job.quarantined_at)
    return message
