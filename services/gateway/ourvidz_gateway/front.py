"""What REST and gRPC have in common: they translate, and everything that could differ between them happens here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import isasyncgen
from typing import Self
from uuid import UUID

from ourvidz_gateway.admission import admit
from ourvidz_gateway.application import Jobs
from ourvidz_gateway.assets import AssetFilter, ListedAsset
from ourvidz_gateway.auth import Authenticator
from ourvidz_gateway.catalog import Catalog, JobType
from ourvidz_gateway.draft import JobDraft
from ourvidz_gateway.errors import (
    AssetNotFound,
    DatabaseUnavailable,
    GatewayError,
    InvalidRequest,
    JobNotFound,
    ModerationUnavailable,
    ReferenceImageNotFound,
)
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import Accepted, Asset, Job, JobFilter
from ourvidz_gateway.pages import check_page_size
from ourvidz_gateway.parts import Parts
from ourvidz_gateway.quarantine import Quarantine
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_gateway.text import is_plain
from ourvidz_gateway.uploads import ReferenceImage
from ourvidz_gateway.watches import Update, merge
from ourvidz_serving.storage import ObjectStore

MAX_SEQUENCE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SignedAsset:
    """An asset with a URL that opens it for a while."""

    asset: Asset
    url: str
    url_expires_at: datetime


@dataclass(frozen=True, slots=True)
class SignedFile:
    """An asset as lists of files show it, with a URL that opens it for a while."""

    listed: ListedAsset
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
    """All that a front needs to serve its callers: `jobs` and `parts` do the work; `quarantine` is for operators."""

    jobs: Jobs
    catalog: Catalog
    authenticator: Authenticator
    store: ObjectStore
    settings: GatewaySettings
    parts: Parts
    quarantine: Quarantine

    @classmethod
    def over(cls, gateway: Gateway, *, catalog: Catalog, store: ObjectStore, settings: GatewaySettings) -> Self:
        """Return the front of a gateway."""
        return cls(
            jobs=gateway,
            catalog=catalog,
            authenticator=Authenticator.from_settings(settings),
            store=store,
            settings=settings,
            parts=gateway.parts,
            quarantine=gateway.quarantine,
        )

    async def create_job(self, draft: JobDraft, user_id: str) -> tuple[Accepted, JobType]:
        """Check a draft and accept it.

        Raises what `admit`, `References.find_own`, `PromptPolicy.check` and `Jobs.accept` raise.
        """
        buckets = [job_type.bucket for job_type in self.catalog.job_types.values()]
        own_files = await self.parts.references.find_own(user_id, draft.reference_urls, buckets)
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
            await self.parts.policy.check(
                user_id, prompt=job.request["prompt"], negative_prompt=job.request["negative_prompt"]
            )
        except (InvalidRequest, ModerationUnavailable):
            # What was accepted under a key stays so, though its reference may be deleted, its host no longer allowed, or
            # its prompt judged otherwise by now.
            accepted = await self.jobs.accepted_before(user_id, draft.checked_key(), draft.fingerprint())
            if accepted is None:
                raise
        else:
            accepted = await self.jobs.accept(job)
        return accepted, self.catalog.get(accepted.job.job_type)

    async def upload_reference(self, user_id: str, data: bytes, *, filename: str) -> SignedReference:
        """Store a picture for a user's jobs to follow. Raises what `Uploads.upload` raises."""
        image = await self.parts.uploads.upload(user_id, data, filename=filename)
        return SignedReference(image, *await self._url(image.bucket, image.key))

    async def list_references(
        self, user_id: str, *, page_size: int, page_token: str | None
    ) -> tuple[list[SignedReference], str | None]:
        """Return a page of uploaded pictures and the token of the next. Raises `InvalidRequest` for a bad one."""
        check_page_size(page_size)
        images, next_token = await self.parts.uploads.page(user_id, page_size=page_size, page_token=page_token)
        return [SignedReference(image, *await self._url(image.bucket, image.key)) for image in images], next_token

    async def delete_reference(self, user_id: str, image_id: str) -> None:
        """Delete an uploaded picture. Raises `ReferenceImageNotFound`."""
        await self.parts.uploads.delete(user_id, _parse_id(image_id, ReferenceImageNotFound))

    async def list_assets(
        self, user_id: str, where: AssetFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[SignedFile], str | None]:
        """Return a page of assets and the token of the next. Raises `InvalidRequest` for a bad size, token or filter."""
        check_page_size(page_size)
        self._check_filter(job_type=where.job_type, project_id=where.project_id)
        assets, next_token = await self.parts.assets.page(user_id, where, page_size=page_size, page_token=page_token)
        return [SignedFile(each, *await self._url(each.asset.bucket, each.asset.key)) for each in assets], next_token

    async def open_asset(self, user_id: str, asset_id: str) -> str:
        """Return a fresh URL of an asset's content. Raises `AssetNotFound`."""
        asset = (await self.parts.assets.get(user_id, _parse_id(asset_id, AssetNotFound))).asset
        return (await self._url(asset.bucket, asset.key))[0]

    async def delete_asset(self, user_id: str, asset_id: str) -> None:
        """Delete an asset. Raises `AssetNotFound`."""
        await self.parts.assets.delete(user_id, _parse_id(asset_id, AssetNotFound))

    async def list_jobs(
        self, user_id: str, where: JobFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[Job], str | None]:
        """Return a page of jobs and the token of the next. Raises `InvalidRequest` for a bad size, token or filter."""
        check_page_size(page_size)
        self._check_filter(
            job_type=where.job_type, project_id=where.project_id, video_id=where.video_id, image_id=where.image_id
        )
        return await self.jobs.page(user_id, where, page_size=page_size, page_token=page_token)

    @asynccontextmanager
    async def watch_job(
        self, job: Job, *, after: int = 0, previews: bool = False, heartbeat_s: float | None = None
    ) -> AsyncIterator[AsyncIterator[Update]]:
        """Give a job's events, and let go of the watch at once when the block is left, however that happens.

        In between come previews, if asked for, and heartbeats when there was nothing else for `heartbeat_s` seconds.
        """
        events = self.jobs.watch(job.user_id, job.id, after=after)
        chosen = self.parts.previews if previews else None
        try:
            async with aclosing(merge(events, job, after=after, previews=chosen, heartbeat_s=heartbeat_s)) as updates:
                yield updates
        finally:
            if isasyncgen(events):
                await events.aclose()

    async def await_end(self, job: Job, *, within_s: float) -> Job:
        """Return a job once it has ended, or as it stands after `within_s` seconds or when this server drains.

        It is given back as it came while the database is out of reach: that it was accepted stays true.
        """
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s), self.watch_job(job) as updates:
                    async for _ in updates:
                        pass
            return await self.jobs.get(job.user_id, job.id)
        except DatabaseUnavailable:
            return job

    async def sign(self, job: Job) -> list[SignedAsset]:
        """Return a job's assets with fresh URLs, in order."""
        return [SignedAsset(asset, *await self._url(asset.bucket, asset.key)) for asset in job.assets]

    async def _url(self, bucket: str, key: str) -> tuple[str, datetime]:
        """Return a URL that opens an object, and when it stops doing so."""
        expires = self.settings.url_expiry
        return await self.store.presign_get(bucket, key, expires=expires), datetime.now(UTC) + expires

    def _check_filter(self, *, job_type: str | None, **ids: str | None) -> None:
        if job_type is not None:
            self.catalog.get(job_type, field="job_type")
        for field, value in ids.items():
            if value is not None and not is_plain(value):
                raise InvalidRequest(f"{field} has a control character.", field=field)


def parse_job_id(text: str) -> UUID:
    """Read a job's id. Raises `JobNotFound` for what is none, since no job can have it."""
    return _parse_id(text, JobNotFound)


def _parse_id(text: str, not_found: Callable[[], GatewayError]) -> UUID:
    try:
        found = UUID(text)
    except ValueError:
        raise not_found() from None
    # UUID() also reads forms with braces or without hyphens, under which nothing is ever named.
    if str(found) != text.lower():
        raise not_found()
    return found


def parse_sequence(value: int | str, *, field: str) -> int:
    """Read the number of the last event seen. Raises `InvalidRequest`."""
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= MAX_SEQUENCE):
        raise InvalidRequest(f"{field} must be the number of an event, 0 or more.", field=field)
    return int(text)
