"""What REST and gRPC have in common: they translate, and everything that could differ between them happens here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import isasyncgen
from uuid import UUID

from ourvidz_gateway.admission import JobDraft, admit
from ourvidz_gateway.application import Jobs
from ourvidz_gateway.auth import Authenticator
from ourvidz_gateway.catalog import Catalog, JobType
from ourvidz_gateway.errors import InvalidRequest, JobNotFound
from ourvidz_gateway.jobs import Accepted, Asset, Job, JobEvent, JobFilter
from ourvidz_gateway.references import ReferenceImage, References
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_gateway.text import is_plain
from ourvidz_serving.storage import ObjectStore

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
MAX_SEQUENCE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SignedAsset:
    """An asset with a URL that opens it for a while."""

    asset: Asset
    url: str
    url_expires_at: datetime


@dataclass(frozen=True, slots=True)
class SignedReference:
    """An uploaded picture with a URL that opens it for a while."""

    image: ReferenceImage
    url: str
    url_expires_at: datetime


@dataclass(frozen=True, slots=True)
class Front:
    """All that a front needs to serve its callers."""

    jobs: Jobs
    catalog: Catalog
    authenticator: Authenticator
    store: ObjectStore
    settings: GatewaySettings
    references: References

    async def create_job(self, draft: JobDraft, user_id: str) -> tuple[Accepted, JobType]:
        """Check a draft and accept it. Raises what `admit`, `References.find_own` and `Jobs.accept` raise."""
        buckets = [job_type.bucket for job_type in self.catalog.job_types.values()]
        own_files = await self.references.find_own(user_id, draft.reference_urls, buckets)
        try:
            job = admit(
                draft,
                user_id,
                self.catalog,
                reference_hosts=self.settings.reference_hosts,
                webhook_hosts=self.settings.webhook_hosts,
                allow_http=self.settings.allow_private_fetch,
                own_files=own_files,
            )
        except InvalidRequest:
            # What was accepted under a key stays so, though its reference may be deleted or its host no longer allowed.
            accepted = await self.jobs.accepted_before(user_id, draft.checked_key(), draft.fingerprint())
            if accepted is None:
                raise
        else:
            accepted = await self.jobs.accept(job)
        return accepted, self.catalog.get(accepted.job.job_type)

    async def upload_reference(self, user_id: str, data: bytes, *, filename: str) -> SignedReference:
        """Store a picture for a user's jobs to follow. Raises what `References.upload` raises."""
        image = await self.references.upload(user_id, data, filename=filename)
        expires = self.settings.url_expiry
        url = await self.store.presign_get(image.bucket, image.key, expires=expires)
        return SignedReference(image, url, datetime.now(UTC) + expires)

    async def list_jobs(
        self, user_id: str, where: JobFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[Job], str | None]:
        """Return a page of jobs and the token of the next. Raises `InvalidRequest` for a bad size, token or filter."""
        if not 1 <= page_size <= MAX_PAGE_SIZE:
            raise InvalidRequest(f"The page size must be from 1 to {MAX_PAGE_SIZE}.", field="page_size")
        if where.job_type is not None:
            self.catalog.get(where.job_type, field="job_type")
        for field in ("project_id", "video_id", "image_id"):
            value = getattr(where, field)
            if value is not None and not is_plain(value):
                raise InvalidRequest(f"{field} has a control character.", field=field)
        return await self.jobs.page(user_id, where, page_size=page_size, page_token=page_token)

    @asynccontextmanager
    async def watch_job(self, user_id: str, job_id: UUID, *, after: int) -> AsyncIterator[AsyncIterator[JobEvent]]:
        """Give a job's events, and let go of the watch at once when the block is left, however that happens."""
        events = self.jobs.watch(user_id, job_id, after=after)
        try:
            yield events
        finally:
            if isasyncgen(events):
                await events.aclose()

    async def sign(self, job: Job) -> list[SignedAsset]:
        """Return a job's assets with fresh URLs, in order."""
        expires = self.settings.url_expiry
        expires_at = datetime.now(UTC) + expires
        return [
            SignedAsset(asset, await self.store.presign_get(asset.bucket, asset.key, expires=expires), expires_at)
            for asset in job.assets
        ]


def parse_job_id(text: str) -> UUID:
    """Read a job's id. Raises `JobNotFound` for what is none, since no job can have it."""
    try:
        job_id = UUID(text)
    except ValueError:
        raise JobNotFound from None
    # UUID() also reads forms with braces or without hyphens, under which no job is ever named.
    if str(job_id) != text.lower():
        raise JobNotFound
    return job_id


def parse_sequence(value: int | str, *, field: str) -> int:
    """Read the number of the last event seen. Raises `InvalidRequest`."""
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= MAX_SEQUENCE):
        raise InvalidRequest(f"{field} must be the number of an event, 0 or more.", field=field)
    return int(text)
