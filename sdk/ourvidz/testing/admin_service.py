"""The double's AdminService: credits are granted; no webhooks are sent, and nothing comes into quarantine."""

# ruff: noqa: N802  # the contract names the methods

from __future__ import annotations

import grpc

from ourvidz.api.admin.v1 import admin_pb2, admin_pb2_grpc
from ourvidz.errors import (
    DeliveryNotFound,
    IdempotencyConflict,
    InsufficientCredits,
    InvalidRequest,
    JobNotFound,
    JobNotQuarantined,
)
from ourvidz.testing.lists import page_of
from ourvidz.testing.reception import Reception
from ourvidz.testing.refusals import bad_field
from ourvidz.testing.world import World

MOST_AT_ONCE = 1_000_000_000


class FakeAdminService(admin_pb2_grpc.AdminServiceServicer):
    """What operators may do."""

    def __init__(self, world: World, reception: Reception) -> None:
        self._world = world
        self._reception = reception
        self._granted: dict[str, bytes] = {}
        """The grants that were made, by request id."""

    def GrantCredits(
        self, request: admin_pb2.GrantCreditsRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GrantCreditsResponse:
        """Add credits to a user's account, or take some away."""
        with self._reception.call("Admin/GrantCredits", request, context, operators_only=True):
            _check_user(request.user_id)
            if not 1 <= abs(request.amount) <= MOST_AT_ONCE:
                raise bad_field(
                    InvalidRequest, f"The amount must be -{MOST_AT_ONCE:,} to {MOST_AT_ONCE:,}, and not 0.", "amount"
                )
            if len(request.note) > 500:
                raise bad_field(InvalidRequest, "A note has at most 500 characters.", "note")
            content = request.SerializeToString(deterministic=True)
            account = self._world.account(request.user_id)
            before = self._granted.get(request.request_id)
            if before is not None and before != content:
                raise IdempotencyConflict("Another grant was made under the same request id.")
            if before is None:
                if account.available + request.amount < 0:
                    raise InsufficientCredits(f"Only {account.available} credits can be taken away.")
                account.available += request.amount
                if request.request_id:
                    self._granted[request.request_id] = content
            return admin_pb2.GrantCreditsResponse(credits=self._credits(request.user_id))

    def GetCredits(
        self, request: admin_pb2.GetCreditsRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GetCreditsResponse:
        """Return a user's credits."""
        with self._reception.call("Admin/GetCredits", request, context, operators_only=True):
            _check_user(request.user_id)
            return admin_pb2.GetCreditsResponse(credits=self._credits(request.user_id))

    def ListDeliveries(
        self, request: admin_pb2.ListDeliveriesRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ListDeliveriesResponse:
        """Return an empty page."""
        with self._reception.call("Admin/ListDeliveries", request, context, operators_only=True):
            page_of((), int, page_size=request.page_size, page_token=request.page_token)
            return admin_pb2.ListDeliveriesResponse()

    def RetryDelivery(
        self, request: admin_pb2.RetryDeliveryRequest, context: grpc.ServicerContext
    ) -> admin_pb2.RetryDeliveryResponse:
        """Find no delivery."""
        with self._reception.call("Admin/RetryDelivery", request, context, operators_only=True):
            raise DeliveryNotFound("There is no such delivery.")
        return admin_pb2.RetryDeliveryResponse()

    def ListQuarantined(
        self, request: admin_pb2.ListQuarantinedRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ListQuarantinedResponse:
        """Return an empty page."""
        with self._reception.call("Admin/ListQuarantined", request, context, operators_only=True):
            page_of((), int, page_size=request.page_size, page_token=request.page_token)
            return admin_pb2.ListQuarantinedResponse()

    def ReleaseQuarantined(
        self, request: admin_pb2.ReleaseQuarantinedRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ReleaseQuarantinedResponse:
        """Find that the job is not in quarantine."""
        with self._reception.call("Admin/ReleaseQuarantined", request, context, operators_only=True):
            if request.job_id in self._world.jobs:
                raise JobNotQuarantined(f"The job {request.job_id} is not in quarantine.")
            raise JobNotFound(f"There is no job {request.job_id}.")
        return admin_pb2.ReleaseQuarantinedResponse()

    def _credits(self, user_id: str) -> admin_pb2.Credits:
        account = self._world.account(user_id)
        return admin_pb2.Credits(user_id=user_id, available=account.available, reserved=account.reserved)


def _check_user(user_id: str) -> None:
    if not user_id or len(user_id) > 200:
        raise bad_field(InvalidRequest, "A user's id has 1 to 200 characters.", "user_id")
