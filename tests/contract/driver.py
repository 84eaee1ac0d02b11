"""What a caller can do, over whichever front, and what they see: one shape for both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import grpc


class Refused(Exception):
    """A call that failed, and all that was said about it."""

    def __init__(
        self,
        *,
        status: int | grpc.StatusCode,
        reason: str,
        message: str,
        retry_after_s: float | None,
        fields: tuple[str, ...],
        flags: frozenset[str] | None,
        retryable: bool | None,
        suggested_action: str | None,
        raw: str,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        self.fields = fields
        self.flags = flags
        """Those that REST sets; None over gRPC, which has none."""
        self.retryable = retryable
        """What REST says; None over gRPC."""
        self.suggested_action = suggested_action
        """What REST says; None over gRPC."""
        self.raw = raw
        """All that came over the wire, as text."""


@dataclass(frozen=True)
class AssetView:
    """An output, as its job shows it."""

    id: str
    url: str


@dataclass(frozen=True)
class JobView:
    """A job as it stands."""

    id: str
    user_id: str
    job_type: str
    state: str
    stage: str | None
    progress: int
    metadata: dict[str, Any]
    assets: list[AssetView]
    error_message: str | None
    credits: int
    warnings: list[str]
    project_id: str | None
    video_id: str | None
    image_id: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True)
class Created:
    """The answer to a request for a job."""

    id: str
    user_id: str
    job_type: str
    state: str
    metadata: dict[str, Any]
    queue_length: int
    model_variant: str


@dataclass(frozen=True)
class EventView:
    """A numbered event of a job."""

    sequence: int
    state: str
    stage: str | None
    progress: int
    attempt: int
    step: tuple[int, int, int, int] | None
    """Which step, of how many, of which image, of how many."""
    error_message: str | None


@dataclass(frozen=True)
class ReferenceView:
    """An uploaded picture."""

    id: str
    url: str
    mime_type: str
    width_px: int
    height_px: int
    size_bytes: int


@dataclass(frozen=True)
class FileView:
    """An output, as the list of all shows it."""

    id: str
    job_id: str
    job_type: str
    url: str
    mime_type: str
    size_bytes: int
    width_px: int
    height_px: int
    duration_s: float | None
    seed: int | None
    project_id: str | None
    created_at: datetime


@dataclass(frozen=True)
class QueueView:
    """How full a queue is."""

    name: str
    depth: int
    running: int
    oldest_s: float | None
    renderers: int


class Driver(Protocol):
    """One user's calls. Each raises `Refused`. An empty page token asks for the first page and ends the last."""

    front: str

    async def create(
        self, job_type: str = "sdxl_image_fast", prompt: str = "a fox", *, key: str | None = None, **fields: Any
    ) -> Created:
        """Ask for a job; fields are named as CreateJobRequest names them, `metadata` for the caller's own."""

    async def get(self, job_id: str) -> JobView: ...

    async def page(self, **query: Any) -> tuple[list[JobView], str]: ...

    async def cancel(self, job_id: str) -> tuple[str, JobView]: ...

    def watch(self, job_id: str, after: int = 0) -> AsyncIterator[EventView]: ...

    async def upload(self, data: bytes, filename: str = "cat.png") -> ReferenceView: ...

    async def references(self, **query: Any) -> tuple[list[ReferenceView], str]: ...

    async def delete_reference(self, image_id: str) -> None: ...

    async def assets(self, **query: Any) -> tuple[list[FileView], str]: ...

    async def delete_asset(self, asset_id: str) -> None: ...

    async def credits(self) -> tuple[int, int]:
        """What can be spent, and what is held."""

    async def queues(self) -> tuple[int, list[QueueView]]: ...


async def ended(driver: Driver, job_id: str) -> JobView:
    """Follow a job to its end, and return it."""
    async for _ in driver.watch(job_id):
        pass
    return await driver.get(job_id)


async def made(driver: Driver, **fields: Any) -> JobView:
    """Ask for a job and wait until it has ended."""
    return await ended(driver, (await driver.create(**fields)).id)
