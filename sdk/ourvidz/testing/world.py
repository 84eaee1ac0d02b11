"""All that the double knows: users' credits, jobs, files. What a database is to the service."""

from __future__ import annotations

import math
import secrets
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Condition
from typing import Any
from uuid import uuid4

from google.protobuf.timestamp_pb2 import Timestamp

from ourvidz.api.assets.v1 import assets_pb2
from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.calls.jobs import job_from_message
from ourvidz.errors import (
    AssetNotFound,
    IdempotencyConflict,
    InsufficientCredits,
    JobNotFound,
    OurVidzError,
    ReferenceImageNotFound,
    StorageQuotaExceeded,
)
from ourvidz.jobs import Job
from ourvidz.testing.admission import Admitted
from ourvidz.testing.catalog import JobType
from ourvidz.testing.files import FileServer
from ourvidz.testing.refusals import bad_field
from ourvidz.testing.scripts import Script

CANCELLED_MESSAGE = "The job was cancelled."
REFERENCE_QUOTA_BYTES = 2**30
URL_EXPIRY = timedelta(days=7)

QUEUED = jobs_pb2.JOB_STATE_QUEUED
PROCESSING = jobs_pb2.JOB_STATE_PROCESSING
COMPLETED = jobs_pb2.JOB_STATE_COMPLETED
FAILED = jobs_pb2.JOB_STATE_FAILED
CANCELLED = jobs_pb2.JOB_STATE_CANCELLED
TERMINAL = (COMPLETED, FAILED, CANCELLED)


@dataclass
class Account:
    """One user's credits."""

    available: int
    reserved: int = 0


@dataclass
class FakeJob:
    """One job, as its user sees it, and what is behind it."""

    number: int
    """Grows with each job."""
    message: jobs_pb2.Job
    """Without its assets."""
    job_type: JobType
    image_count: int
    script: Script
    events: list[jobs_pb2.WatchJobResponse] = field(default_factory=list)
    cancel_requested: bool = False
    released: bool = False
    """Whether a hold of its script is over."""

    @property
    def ended(self) -> bool:
        """Whether it is in a terminal state."""
        return self.message.state in TERMINAL


@dataclass
class FakeFile:
    """An asset or a reference image."""

    number: int
    user_id: str
    message: Any
    """The contract's message."""


class World:
    """Every user's jobs and files. `changed` guards all of it, and tells whoever waits for something to happen."""

    def __init__(self, files: FileServer, *, credits: int) -> None:  # noqa: A002  # the user's word for them
        self.changed = Condition()
        self.closed = False
        self.jobs: dict[str, FakeJob] = {}
        """By id, in the order of their creation."""
        self.scripts: deque[Script] = deque()
        """For the next jobs."""
        self.files = files
        self._accounts: defaultdict[str, Account] = defaultdict(lambda: Account(credits))
        self._assets: dict[str, FakeFile] = {}
        self._references: dict[str, FakeFile] = {}
        self._keys: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._count = 0

    def account(self, user_id: str) -> Account:
        """Return a user's account; whoever was not seen before has a new user's credits."""
        return self._accounts[user_id]

    def accepted_before(self, user_id: str, request: jobs_pb2.CreateJobRequest) -> FakeJob | None:
        """Return the job that was accepted under the same request id. Raises `IdempotencyConflict`."""
        if not request.request_id or (user_id, request.request_id) not in self._keys:
            return None
        content, job_id = self._keys[user_id, request.request_id]
        if content != request.SerializeToString(deterministic=True):
            raise IdempotencyConflict("Another request was sent under the same idempotency key.")
        return self.jobs[job_id]

    def accept(self, user_id: str, request: jobs_pb2.CreateJobRequest, admitted: Admitted) -> FakeJob:
        """Make a job of a request that was checked, and reserve its price. Raises `InsufficientCredits`."""
        account = self.account(user_id)
        if account.available < admitted.credits:
            raise InsufficientCredits(f"The job costs {admitted.credits} credits; {account.available} can be spent.")
        account.available -= admitted.credits
        account.reserved += admitted.credits
        message = jobs_pb2.Job(
            id=str(uuid4()),
            user_id=user_id,
            job_type=request.job_type,
            state=QUEUED,
            stage=jobs_pb2.JOB_STAGE_QUEUED,
            create_time=now(),
            credits=admitted.credits,
            project_id=request.project_id,
            video_id=request.video_id,
            image_id=request.image_id,
            seed=request.seed if request.HasField("seed") else secrets.randbits(32),
        )
        message.metadata.update({**admitted.metadata, "seed": message.seed, "num_images": admitted.image_count})
        script = self.scripts.popleft() if self.scripts else Script()
        job = FakeJob(self._next_number(), message, admitted.job_type, admitted.image_count, script)
        self.jobs[message.id] = job
        if request.request_id:
            self._keys[user_id, request.request_id] = (request.SerializeToString(deterministic=True), message.id)
        self.tell(job, stage=jobs_pb2.JOB_STAGE_QUEUED)
        return job

    def find_job(self, user_id: str, job_id: str) -> FakeJob:
        """Return a user's job. Raises `JobNotFound`."""
        job = self.jobs.get(job_id.lower())
        if job is None or job.message.user_id != user_id:
            raise JobNotFound(f"There is no job {job_id}." if job_id else "There is no such job.")
        return job

    def tell(
        self,
        job: FakeJob,
        *,
        stage: jobs_pb2.JobStage.ValueType = jobs_pb2.JOB_STAGE_UNSPECIFIED,
        state: jobs_pb2.JobState.ValueType = QUEUED,
        progress: int = 0,
        attempt: int = 0,
        **detail: Any,
    ) -> None:
        """Move a job on, and write the event that says so."""
        message = job.message
        message.state, message.stage, message.progress_percent = state, stage, progress
        event = jobs_pb2.WatchJobResponse(
            sequence=len(job.events) + 1,
            event_time=now(),
            state=state,
            stage=stage,
            progress_percent=progress,
            attempt=attempt,
            **detail,
        )
        job.events.append(event)
        self.changed.notify_all()

    def end(
        self,
        job: FakeJob,
        state: jobs_pb2.JobState.ValueType,
        *,
        outputs: Sequence[tuple[bytes, str]] = (),
        error_message: str = "",
        attempt: int = 0,
    ) -> None:
        """Let a job end with its outputs, each its bytes and its MIME type, and settle what it costs."""
        price = job.message.credits
        charged = price if state == COMPLETED else math.ceil(price * len(outputs) / job.image_count)
        account = self.account(job.message.user_id)
        account.reserved -= price
        account.available += price - charged
        for index, (data, mime_type) in enumerate(outputs):
            self._add_asset(job, index, data, mime_type)
        job.message.end_time.CopyFrom(now())
        job.message.error_message = error_message
        progress = 100 if state == COMPLETED else job.message.progress_percent
        detail: dict[str, Any] = {"error_message": error_message} if error_message else {}
        self.tell(job, state=state, progress=progress, attempt=attempt, **detail)

    def cancel(self, job: FakeJob) -> None:
        """Cancel a job: at once while it waits; one that runs sees it at its next step."""
        job.cancel_requested = True
        if job.message.state == QUEUED:
            self.end(job, CANCELLED, error_message=CANCELLED_MESSAGE)
        self.changed.notify_all()

    def show(self, job: FakeJob) -> jobs_pb2.Job:
        """Return a job as its user sees it now, with its assets."""
        message = jobs_pb2.Job()
        message.CopyFrom(job.message)
        if message.state == QUEUED:
            message.queue_position = sum(other.number < job.number for other in self.waiting(job.job_type.queue))
        for asset in sorted(self.assets(message.user_id), key=lambda each: each.message.output_index):
            if asset.message.job_id == message.id:
                message.assets.append(_as_job_asset(asset.message))
        return message

    def as_job(self, job: FakeJob) -> Job:
        """Return a job as the client's own type."""
        return job_from_message(self.show(job))

    def waiting(self, queue: str) -> list[FakeJob]:
        """Return the jobs that wait in a queue."""
        return [job for job in self.jobs.values() if job.job_type.queue == queue and job.message.state == QUEUED]

    def assets(self, user_id: str) -> list[FakeFile]:
        """Return a user's assets."""
        return [asset for asset in self._assets.values() if asset.user_id == user_id]

    def references(self, user_id: str) -> list[FakeFile]:
        """Return a user's reference images."""
        return [image for image in self._references.values() if image.user_id == user_id]

    def add_reference(
        self, user_id: str, data: bytes, *, filename: str, mime_type: str, width_px: int, height_px: int
    ) -> assets_pb2.ReferenceImage:
        """Keep a picture. Raises `StorageQuotaExceeded`."""
        used = sum(image.message.size_bytes for image in self.references(user_id))
        if used + len(data) > REFERENCE_QUOTA_BYTES:
            raise bad_field(StorageQuotaExceeded, "Your reference images would take more than 1 GB.", "file")
        image = assets_pb2.ReferenceImage(
            id=str(uuid4()),
            url_expire_time=now(URL_EXPIRY),
            filename=filename,
            mime_type=mime_type,
            size_bytes=len(data),
            width_px=width_px,
            height_px=height_px,
            create_time=now(),
        )
        image.url = self.files.put(f"reference-images/{user_id}/{image.id}", data, mime_type)
        self._references[image.id] = FakeFile(self._next_number(), user_id, image)
        return image

    def delete_asset(self, user_id: str, asset_id: str) -> None:
        """Delete an asset and its file. Raises `AssetNotFound`."""
        self._delete(self._assets, user_id, asset_id, AssetNotFound("There is no such asset."))

    def delete_reference(self, user_id: str, image_id: str) -> None:
        """Delete a reference image and its file. Raises `ReferenceImageNotFound`."""
        error = ReferenceImageNotFound("There is no such reference image.")
        self._delete(self._references, user_id, image_id, error)

    def is_own(self, user_id: str, url: str) -> bool | None:
        """Say whether a URL of ours names a picture of the user's; None for a URL that is not ours."""
        if not url.startswith(f"{self.files.url}/"):
            return None
        own = (*self.references(user_id), *self.assets(user_id))
        # The signature may have expired or be missing: it is the path that names the file.
        return any(
            each.message.url.partition("?")[0] == url.partition("?")[0]
            for each in own
            if each.message.mime_type.startswith("image/")
        )

    def _add_asset(self, job: FakeJob, index: int, data: bytes, mime_type: str) -> None:
        message, job_type = job.message, job.job_type
        asset = assets_pb2.Asset(
            id=str(uuid4()),
            job_id=message.id,
            job_type=message.job_type,
            output_index=index,
            url_expire_time=now(URL_EXPIRY),
            mime_type=mime_type,
            size_bytes=len(data),
            width_px=job_type.width_px,
            height_px=job_type.height_px,
            seed=(message.seed + index) % 2**32,
            project_id=message.project_id,
            create_time=now(),
        )
        if job_type.duration_s is not None:
            asset.duration.FromTimedelta(timedelta(seconds=job_type.duration_s))
        suffix = "png" if mime_type == "image/png" else "mp4"
        key = f"{job_type.bucket}/{message.user_id}/{message.id}/1/{index}.{suffix}"
        asset.url = self.files.put(key, data, mime_type)
        self._assets[asset.id] = FakeFile(self._next_number(), message.user_id, asset)

    def _delete(self, files: dict[str, FakeFile], user_id: str, file_id: str, error: OurVidzError) -> None:
        found = files.get(file_id.lower())
        if found is None or found.user_id != user_id:
            raise error
        self.files.delete(found.message.url)
        del files[file_id.lower()]

    def _next_number(self) -> int:
        self._count += 1
        return self._count


def now(later: timedelta = timedelta()) -> Timestamp:
    """Return the time it is, or some time later."""
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + later)
    return moment


def _as_job_asset(asset: assets_pb2.Asset) -> jobs_pb2.JobAsset:
    message = jobs_pb2.JobAsset(
        id=asset.id,
        url=asset.url,
        url_expire_time=asset.url_expire_time,
        mime_type=asset.mime_type,
        size_bytes=asset.size_bytes,
        width_px=asset.width_px,
        height_px=asset.height_px,
        seed=asset.seed,
    )
    if asset.HasField("duration"):
        message.duration.CopyFrom(asset.duration)
    return message
