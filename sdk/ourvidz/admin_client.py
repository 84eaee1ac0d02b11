"""The clients for operators: users' credits, webhook deliveries, jobs in quarantine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self, Unpack

from ourvidz.address import DEFAULT_ADDRESS, Address
from ourvidz.calls import operators
from ourvidz.connection import CALL_TIMEOUT_S, LONGEST_PAGE, AsyncConnection, Connection
from ourvidz.credits import Credits
from ourvidz.deliveries import Delivery
from ourvidz.filters import DeliveryFilter, QuarantineFilter
from ourvidz.pages import Page
from ourvidz.quarantine import QuarantinedJob


class AdminClient:
    """What operators may do; `token` is a JWT whose role claim is `service_role`. Safe to use from several threads.

    Close it, or use it in a `with`. Every call raises a kind of `OurVidzError`: `Unauthenticated`, `PermissionDenied`
    for a token of another role, and `Unreachable` from all of them.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, token: str | None = None, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        self._connection = Connection(Address(address, token), timeout_s)

    @classmethod
    def from_environment(cls, *, timeout_s: float = CALL_TIMEOUT_S) -> Self:
        """Make a client from `OURVIDZ_GRPC` and `OURVIDZ_TOKEN`, or their defaults."""
        found = Address.from_environment()
        return cls(found.grpc, found.token, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    def grant_credits(
        self,
        user_id: str,
        amount: int,
        *,
        note: str = "",
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Credits:
        """Add credits to a user's account, or take some away where `amount` is negative; return what they have then.

        The same `request_id` grants once; without one, each call grants. Raises `InvalidRequest`,
        `IdempotencyConflict`, and `InsufficientCredits` where fewer can be spent than are to be taken away.
        """
        return self._connection.answer(operators.grant_credits(user_id, amount, note, request_id), timeout_s)

    def get_credits(self, user_id: str, *, timeout_s: float | None = None) -> Credits:
        """Return what a user can spend."""
        return self._connection.answer(operators.get_credits(user_id), timeout_s)

    def list_deliveries(
        self,
        *,
        page_size: int = 20,
        page_token: str | None = None,
        timeout_s: float | None = None,
        **where: Unpack[DeliveryFilter],
    ) -> Page[Delivery]:
        """Return a page of 1 to 100 webhook deliveries, newest first. Raises `InvalidRequest`."""
        return self._connection.answer(operators.list_deliveries(page_size, page_token, **where), timeout_s)

    def iter_deliveries(self, **where: Unpack[DeliveryFilter]) -> Iterator[Delivery]:
        """Yield webhook deliveries, newest first, asking for each page when it is needed."""
        return self._connection.every(lambda token: operators.list_deliveries(LONGEST_PAGE, token, **where))

    def retry_delivery(self, delivery_id: str, *, timeout_s: float | None = None) -> Delivery:
        """Send a webhook again, soon and under its old id. Raises `DeliveryNotFound` and `DeliveryInProgress`."""
        return self._connection.answer(operators.retry_delivery(delivery_id), timeout_s)

    def list_quarantined(
        self,
        *,
        page_size: int = 20,
        page_token: str | None = None,
        timeout_s: float | None = None,
        **where: Unpack[QuarantineFilter],
    ) -> Page[QuarantinedJob]:
        """Return a page of 1 to 100 jobs in quarantine, newest first. Raises `InvalidRequest`."""
        return self._connection.answer(operators.list_quarantined(page_size, page_token, **where), timeout_s)

    def iter_quarantined(self, **where: Unpack[QuarantineFilter]) -> Iterator[QuarantinedJob]:
        """Yield jobs in quarantine, newest first, asking for each page when it is needed."""
        return self._connection.every(lambda token: operators.list_quarantined(LONGEST_PAGE, token, **where))

    def release_quarantined(self, job_id: str, *, timeout_s: float | None = None) -> str:
        """Let a quarantined job be tried again, as a new job whose id is returned; called again, it is the same one.

        Raises `JobNotFound`, `JobNotQuarantined`, and `InsufficientCredits` where the job's user can't pay.
        """
        return self._connection.answer(operators.release_quarantined(job_id), timeout_s)


class AsyncAdminClient:
    """As `AdminClient`, for asyncio; belongs to the event loop that runs when its first call is made."""

    def __init__(
        self, address: str = DEFAULT_ADDRESS, token: str | None = None, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        self._connection = AsyncConnection(Address(address, token), timeout_s)

    @classmethod
    def from_environment(cls, *, timeout_s: float = CALL_TIMEOUT_S) -> Self:
        """Make a client from `OURVIDZ_GRPC` and `OURVIDZ_TOKEN`, or their defaults."""
        found = Address.from_environment()
        return cls(found.grpc, found.token, timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def grant_credits(
        self,
        user_id: str,
        amount: int,
        *,
        note: str = "",
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Credits:
        """Add credits to a user's account, or take some away, as `AdminClient.grant_credits` does."""
        return await self._connection.answer(operators.grant_credits(user_id, amount, note, request_id), timeout_s)

    async def get_credits(self, user_id: str, *, timeout_s: float | None = None) -> Credits:
        """Return what a user can spend."""
        return await self._connection.answer(operators.get_credits(user_id), timeout_s)

    async def list_deliveries(
        self,
        *,
        page_size: int = 20,
        page_token: str | None = None,
        timeout_s: float | None = None,
        **where: Unpack[DeliveryFilter],
    ) -> Page[Delivery]:
        """Return a page of 1 to 100 webhook deliveries, newest first. Raises `InvalidRequest`."""
        return await self._connection.answer(operators.list_deliveries(page_size, page_token, **where), timeout_s)

    def iter_deliveries(self, **where: Unpack[DeliveryFilter]) -> AsyncIterator[Delivery]:
        """Yield webhook deliveries, newest first, asking for each page when it is needed."""
        return self._connection.every(lambda token: operators.list_deliveries(LONGEST_PAGE, token, **where))

    async def retry_delivery(self, delivery_id: str, *, timeout_s: float | None = None) -> Delivery:
        """Send a webhook again, soon and under its old id. Raises `DeliveryNotFound` and `DeliveryInProgress`."""
        return await self._connection.answer(operators.retry_delivery(delivery_id), timeout_s)

    async def list_quarantined(
        self,
        *,
        page_size: int = 20,
        page_token: str | None = None,
        timeout_s: float | None = None,
        **where: Unpack[QuarantineFilter],
    ) -> Page[QuarantinedJob]:
        """Return a page of 1 to 100 jobs in quarantine, newest first. Raises `InvalidRequest`."""
        return await self._connection.answer(operators.list_quarantined(page_size, page_token, **where), timeout_s)

    def iter_quarantined(self, **where: Unpack[QuarantineFilter]) -> AsyncIterator[QuarantinedJob]:
        """Yield jobs in quarantine, newest first, asking for each page when it is needed."""
        return self._connection.every(lambda token: operators.list_quarantined(LONGEST_PAGE, token, **where))

    async def release_quarantined(self, job_id: str, *, timeout_s: float | None = None) -> str:
        """Let a quarantined job be tried again, as `AdminClient.release_quarantined` does."""
        return await self._connection.answer(operators.release_quarantined(job_id), timeout_s)
