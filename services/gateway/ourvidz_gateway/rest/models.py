"""The JSON that the REST front reads and writes, as its OpenAPI description shows it.

Keys of jobs are snake_case; keys of the queue-job reply, of queues and of errors are as the reference prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ourvidz_gateway.catalog import JobType
from ourvidz_gateway.front import SignedAsset
from ourvidz_gateway.jobs import Accepted, Job, JobStage, JobState, Kind, QueueStatus

_JOB_ID = "0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53"
_USER_ID = "5d1e9a52-1a3c-4a0e-8f43-2f7d0f3f1b11"
_CREATED = "2026-01-27T12:00:00Z"


class JobMetadata(BaseModel):
    """What is to be made. Keys of your own are kept and returned, up to 16 kB in all."""

    model_config = ConfigDict(extra="allow")

    prompt: str = Field(min_length=1, max_length=10_000, description="What is to be seen.")
    negative_prompt: str | None = Field(None, max_length=10_000, description="What is not to be seen.")
    num_images: Literal[1, 3, 6] | None = Field(None, description="1, 3 or 6 for SDXL types, 1 for all others.")
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="Image i uses seed + i. Absent: one is drawn.")
    reference_image_url: str | None = Field(None, description="A picture that images follow; SDXL types only.")
    reference_type: Literal["style", "composition", "character"] | None = Field(None, description="Default: style.")
    start_reference_image_url: str | None = Field(None, description="What a clip starts with; video types only.")
    end_reference_image_url: str | None = Field(None, description="What a clip ends with; video types only.")
    reference_strength: float | None = Field(None, ge=0, le=1, description="1.0 is closest. Default: 0.5.")
    similarity_strength: float | None = Field(None, ge=0, le=1, description="Another name of reference_strength.")
    credits: int | None = Field(None, description="What the job may cost, at least its price. Default: its price.")
    bucket: str | None = Field(None, description="The type's own bucket; there is no need to send it.")


class JobConfig(BaseModel):
    """Wins over the same keys of metadata."""

    model_config = ConfigDict(extra="forbid")

    num_images: Literal[1, 3, 6] | None = None
    seed: int | None = Field(None, ge=0, le=2**32 - 1)


class QueueJobRequest(BaseModel):
    """A request for a job. It documents only: admission checks what comes in, for REST and gRPC alike."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "jobType": "sdxl_image_fast",
                "metadata": {
                    "prompt": "a lighthouse at dusk",
                    "negative_prompt": "blurry, low quality, watermark",
                    "num_images": 3,
                    "seed": 12345,
                },
            }
        },
    )

    jobType: str = Field(description="One of the catalog's job types.")  # noqa: N815  # the reference's key
    metadata: JobMetadata
    config: JobConfig | None = None
    projectId: str | None = Field(None, max_length=200)  # noqa: N815  # the reference's key
    videoId: str | None = Field(None, max_length=200)  # noqa: N815  # the reference's key
    imageId: str | None = Field(None, max_length=200)  # noqa: N815  # the reference's key
    webhookUrl: str | None = Field(None, description="Called when the job has ended; its host must be allowed.")  # noqa: N815  # as its neighbours
    startTimeoutSeconds: float | None = Field(  # noqa: N815  # as its neighbours
        None, ge=1, le=86_400, description="The job fails if no renderer has begun it within this time."
    )


class QueuedJob(BaseModel):
    """A job that was just accepted."""

    id: UUID = Field(examples=[_JOB_ID])
    user_id: str = Field(examples=[_USER_ID])
    job_type: str = Field(examples=["sdxl_image_fast"])
    status: Literal["queued"]
    created_at: datetime = Field(examples=[_CREATED])
    metadata: dict[str, Any]


class JobReply(BaseModel):
    """A job as it stands."""

    id: UUID = Field(examples=[_JOB_ID])
    user_id: str = Field(examples=[_USER_ID])
    job_type: str = Field(examples=["sdxl_image_fast"])
    status: JobState
    stage: JobStage | None = Field(description="What is being done for it; null once it has ended.")
    progress: int = Field(ge=0, le=100, description="Percent; 100 only when completed.")
    queue_position: int | None = Field(description="Jobs likely to start before it: an estimate, while it waits.")
    created_at: datetime = Field(examples=[_CREATED])
    started_at: datetime | None
    completed_at: datetime | None = Field(description="When it ended, completed or not.")
    metadata: dict[str, Any] = Field(description="What came in, and `seed` and more that the result adds.")
    assets: list[str] = Field(description="Signed URLs of its outputs, in order.")
    asset_ids: list[UUID]
    error_message: str | None = Field(description="Why it failed or was cancelled.")
    credits: int
    warnings: list[str]
    project_id: str | None
    video_id: str | None
    image_id: str | None
    retry_of: UUID | None = Field(description="The job that this one repeats.")

    @classmethod
    def of(cls, job: Job, assets: Sequence[SignedAsset]) -> Self:
        """Describe a job with its signed assets."""
        return cls(
            id=job.id,
            user_id=job.user_id,
            job_type=job.job_type,
            status=job.state,
            stage=job.stage,
            progress=job.progress,
            queue_position=job.queue_position,
            created_at=job.created_at,
            started_at=job.started_at,
            completed_at=job.completed_at,
            metadata=job.metadata,
            assets=[signed.url for signed in assets],
            asset_ids=[signed.asset.id for signed in assets],
            error_message=job.error_message,
            credits=job.credits,
            warnings=job.warnings,
            project_id=job.project_id,
            video_id=job.video_id,
            image_id=job.image_id,
            retry_of=job.retry_of,
        )


class QueueJobReply(BaseModel):
    """Answers an accepted job."""

    success: Literal[True]
    job: QueuedJob | JobReply = Field(description="With `Prefer: wait` the job as `GET /api/jobs/{job_id}` shows it.")
    message: str = Field(examples=["sdxl_image_fast job queued."])
    queueLength: int = Field(description="Jobs that wait in the type's queue.")  # noqa: N815  # the reference's key
    modelVariant: str = Field(examples=["sdxl"])  # noqa: N815  # the reference's key
    isSDXL: bool  # noqa: N815  # the reference's key
    negativePromptSupported: bool  # noqa: N815  # the reference's key
    referenceImageSupported: bool  # noqa: N815  # the reference's key
    flexibleQuantitiesSupported: bool  # noqa: N815  # the reference's key
    seedControlSupported: bool  # noqa: N815  # the reference's key

    @classmethod
    def of(cls, accepted: Accepted, job_type: JobType, waited_for: JobReply | None = None) -> Self:
        """Describe an accepted job and what its type can do; `waited_for` is the job after its caller has waited."""
        job = accepted.job
        return cls(
            success=True,
            job=waited_for
            or QueuedJob(
                id=job.id,
                user_id=job.user_id,
                job_type=job.job_type,
                # A renderer may have taken it already; the reference promises the state that it was accepted in.
                status="queued",
                created_at=job.created_at,
                metadata=job.metadata,
            ),
            message=f"{job.job_type} job {waited_for.status if waited_for else 'queued'}.",
            queueLength=accepted.queue_length,
            modelVariant=job_type.model_variant,
            isSDXL=job_type.kind is Kind.SDXL,
            # Both renderers take negative prompts and seeds, where the original's WAN worker did not.
            negativePromptSupported=True,
            referenceImageSupported=job_type.supports_reference or job_type.supports_frames,
            flexibleQuantitiesSupported=job_type.supports_counts,
            seedControlSupported=True,
        )


class JobList(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobReply]
    next_cursor: str | None = Field(description="Asks for the next page as `page_token`; null on the last.")


class CancelReply(BaseModel):
    """What cancelling a job found."""

    success: Literal[True]
    found_status: JobState = Field(description="The status that the job was found in.")
    job: JobReply = Field(description="The job as it stands now; a running one may take a step to end.")


class QueueReply(BaseModel):
    """How full one queue is."""

    depth: int = Field(description="Jobs that wait.")
    running: int = Field(description="Jobs that run.")
    oldestSeconds: float | None = Field(description="How long the oldest has waited.")  # noqa: N815  # as queueDepth
    renderers: int = Field(description="Renderers that can take work now.")


class QueueStatusReply(BaseModel):
    """How full the queues are."""

    queueDepth: int = Field(description="Jobs that wait, in all queues.")  # noqa: N815  # the reference's key
    queues: dict[str, QueueReply] = Field(description="`sdxl_queue`, `wan_queue` and `enhancer_queue`.")

    @classmethod
    def of(cls, queues: Sequence[QueueStatus]) -> Self:
        """Describe all queues."""
        return cls(
            queueDepth=sum(queue.depth for queue in queues),
            queues={
                queue.kind.queue: QueueReply(
                    depth=queue.depth,
                    running=queue.running,
                    oldestSeconds=queue.oldest_seconds,
                    renderers=queue.renderers,
                )
                for queue in queues
            },
        )


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"]


class ErrorReply(BaseModel):
    """Why it could not be done. Flags are there only where they are true."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "success": False,
                "error": "sdxl_image_fast makes 1, 3 or 6 images at a time.",
                "details": "reason=INVALID_QUANTITY field=metadata.num_images",
                "retryable": False,
                "suggestedAction": "Choose one of the quantities listed.",
                "invalidQuantity": True,
            }
        }
    )

    success: Literal[False]
    error: str = Field(description="What went wrong, for people.")
    details: str | None = Field(None, description="The reason and the fields to blame, for programs.")
    retryable: bool | None = Field(None, description="Whether the same request may work later; see Retry-After.")
    suggestedAction: str | None = None  # noqa: N815  # the reference's key
    referenceImageError: bool | None = None  # noqa: N815  # the reference's key
    invalidQuantity: bool | None = None  # noqa: N815  # the reference's key
    invalidSeed: bool | None = None  # noqa: N815  # the reference's key


def inline_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema without references, for a body that FastAPI doesn't parse itself."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return inlined(definitions[node["$ref"].rpartition("/")[2]])
        return {key: inlined(value) for key, value in node.items()}

    result: dict[str, Any] = inlined(schema)
    return result
