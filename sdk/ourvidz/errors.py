"""What can go wrong for a caller.

OurVidzError
├── InvalidRequest               a field is bad; nothing was stored or charged
│   ├── UnknownJobType
│   ├── InvalidPrompt
│   │   └── PromptRefused        the service makes no such pictures
│   ├── InvalidQuantity
│   ├── InvalidSeed
│   ├── InvalidReferenceImage
│   ├── FileTooLarge
│   └── StorageQuotaExceeded     the user's reference images would take more than they may
├── Unauthenticated              no token, or one that is not accepted
├── PermissionDenied             the token's role may not do this
├── NotFound                     there is no such thing, or it is another user's
│   ├── JobNotFound
│   ├── AssetNotFound
│   ├── ReferenceImageNotFound
│   └── DeliveryNotFound
├── InsufficientCredits
├── IdempotencyConflict          the request id was used for another request
├── DeliveryInProgress           a webhook is being sent right now
├── JobNotQuarantined            there is nothing to release the job from
├── JobNotCompleted              the job that was waited for ended without its outputs
│   ├── JobFailed
│   └── JobCancelled
├── Unavailable                  not now; asking again later can help
│   ├── NoRenderer
│   ├── QueueFull
│   ├── RateLimited
│   ├── DatabaseUnavailable
│   ├── StorageUnavailable
│   └── Unreachable              nobody answers at the address
├── DownloadFailed               an asset's bytes did not arrive, or not all of them
├── LocalStackError              the stack on this machine can't be started, or is not there
└── ServerFailure                everything else that a server says
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it brings gRPC along, which a program that only catches these does not need
    from ourvidz.jobs import Job
    from ourvidz.rpc_status import FieldViolation


class OurVidzError(Exception):
    """Anything that this package raises on purpose; its text is fit to be shown to a person."""

    reason: str = ""
    """The server's word for it, in SCREAMING_SNAKE; empty where the error was found on this side."""

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        retry_after_s: float | None = None,
        fields: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason
        self.retry_after_s = retry_after_s
        """After how many seconds the server wants to be asked again; None where it did not say."""
        self.fields = tuple(fields)
        """The bad fields of the request, each with what is wrong with it."""


class InvalidRequest(OurVidzError):
    """A field is bad; nothing was stored or charged."""

    reason = "INVALID_REQUEST"


class UnknownJobType(InvalidRequest):
    """The catalog has no such job type."""

    reason = "UNKNOWN_JOB_TYPE"


class InvalidPrompt(InvalidRequest):
    """The prompt is empty, too long, or holds what it may not."""

    reason = "INVALID_PROMPT"


class PromptRefused(InvalidPrompt):
    """The service's policy does not let the prompt pass; it never says which rule it was."""

    reason = "PROMPT_REFUSED"


class InvalidQuantity(InvalidRequest):
    """This type does not make that many images."""

    reason = "INVALID_QUANTITY"


class InvalidSeed(InvalidRequest):
    """The seed is not in 0 to 2³² − 1."""

    reason = "INVALID_SEED"


class InvalidReferenceImage(InvalidRequest):
    """A reference can't be used, or not with this type."""

    reason = "INVALID_REFERENCE_IMAGE"


class FileTooLarge(InvalidRequest):
    """A file is larger than the service takes."""

    reason = "FILE_TOO_LARGE"


class StorageQuotaExceeded(InvalidRequest):
    """The user's reference images would take more than they may; deleting some helps."""

    reason = "STORAGE_QUOTA_EXCEEDED"


class Unauthenticated(OurVidzError):
    """There is no token, or it is not accepted."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(OurVidzError):
    """The token's role may not do this."""

    reason = "PERMISSION_DENIED"


class NotFound(OurVidzError):
    """There is no such thing, or it is another user's: the two look the same on purpose."""


class JobNotFound(NotFound):
    """There is no job with this id."""

    reason = "JOB_NOT_FOUND"


class AssetNotFound(NotFound):
    """There is no asset with this id."""

    reason = "ASSET_NOT_FOUND"


class ReferenceImageNotFound(NotFound):
    """There is no reference image with this id."""

    reason = "REFERENCE_IMAGE_NOT_FOUND"


class DeliveryNotFound(NotFound):
    """There is no webhook delivery with this id."""

    reason = "DELIVERY_NOT_FOUND"


class InsufficientCredits(OurVidzError):
    """The user can't pay for the job."""

    reason = "INSUFFICIENT_CREDITS"


class IdempotencyConflict(OurVidzError):
    """The request id was used before, for another request."""

    reason = "IDEMPOTENCY_CONFLICT"


class DeliveryInProgress(OurVidzError):
    """The webhook is being sent right now; it can be retried once that has ended."""

    reason = "DELIVERY_IN_PROGRESS"


class JobNotQuarantined(OurVidzError):
    """The job is not in quarantine, so there is nothing to release it from."""

    reason = "JOB_NOT_QUARANTINED"


class JobNotCompleted(OurVidzError):
    """A job that was waited for ended without its outputs."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"The job {job.state}: {job.error_message or 'no reason was given'}")
        self.job = job
        """The job as it ended; one that was cancelled may have some outputs."""

    def __reduce__(self) -> tuple[type[JobNotCompleted], tuple[Job]]:
        # Programs that run jobs in workers pickle what they raise.
        return type(self), (self.job,)


class JobFailed(JobNotCompleted):
    """The job could not be done."""


class JobCancelled(JobNotCompleted):
    """The job was cancelled."""


class Unavailable(OurVidzError):
    """The service can't do it now; asking again later can help."""

    reason = "UNAVAILABLE"


class NoRenderer(Unavailable):
    """No renderer is configured for this job type."""

    reason = "NO_RENDERER"


class QueueFull(Unavailable):
    """Too many jobs wait already."""

    reason = "QUEUE_FULL"


class RateLimited(Unavailable):
    """The caller asks too often."""

    reason = "RATE_LIMITED"


class DatabaseUnavailable(Unavailable):
    """The service can't reach its records."""

    reason = "DATABASE_UNAVAILABLE"


class StorageUnavailable(Unavailable):
    """The service can't reach its object storage."""

    reason = "STORAGE_UNAVAILABLE"


class Unreachable(Unavailable):
    """Nobody answers at the address."""


class DownloadFailed(OurVidzError):
    """An asset's bytes did not arrive, or not all of them."""


class LocalStackError(OurVidzError):
    """The stack on this machine can't be started, or is not there."""


class ServerFailure(OurVidzError):
    """The server failed, or said something that this client has no name for."""


BY_REASON: Mapping[str, type[OurVidzError]] = {
    kind.reason: kind
    for kind in (
        InvalidRequest,
        UnknownJobType,
        InvalidPrompt,
        PromptRefused,
        InvalidQuantity,
        InvalidSeed,
        InvalidReferenceImage,
        FileTooLarge,
        StorageQuotaExceeded,
        Unauthenticated,
        PermissionDenied,
        JobNotFound,
        AssetNotFound,
        ReferenceImageNotFound,
        DeliveryNotFound,
        InsufficientCredits,
        IdempotencyConflict,
        DeliveryInProgress,
        JobNotQuarantined,
        Unavailable,
        NoRenderer,
        QueueFull,
        RateLimited,
        DatabaseUnavailable,
        StorageUnavailable,
    )
}
"""The exception for each reason that a server gives."""
