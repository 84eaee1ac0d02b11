"""What the gateway answers when it can't do what was asked.

ServiceError (ourvidz_serving.errors)
└── GatewayError
    ├── InvalidRequest
    │   ├── UnknownJobType
    │   ├── InvalidPrompt
    │   │   └── PromptRefused
    │   ├── InvalidQuantity
    │   ├── InvalidSeed
    │   ├── InvalidReferenceImage
    │   ├── FileTooLarge
    │   ├── StorageQuotaExceeded
    │   └── BodyTooLarge
    ├── Unauthenticated
    ├── PermissionDenied
    ├── InsufficientCredits
    ├── JobNotFound
    ├── AssetNotFound
    ├── ReferenceImageNotFound
    ├── DeliveryNotFound
    ├── DeliveryInProgress
    ├── JobNotQuarantined
    ├── IdempotencyConflict
    ├── RateLimited
    ├── NoRenderer
    ├── QueueFull
    ├── DatabaseUnavailable
    ├── StorageUnavailable
    ├── ModerationUnavailable
    └── IdentityProviderUnavailable

The class attributes are the table from an error to its gRPC status and its REST reply. Messages are for users: they
never carry SQL, a stack trace, or why a token was refused in more detail than its owner needs.
"""

# the names say what happened, as the contracts' reasons do

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar
from uuid import UUID

from grpc import StatusCode

from ourvidz.rpc_status import FieldViolation
from ourvidz_serving.errors import ServiceError


class GatewayError(ServiceError):
    """Any of the gateway's own errors."""

    flag: ClassVar[str | None] = None
    """The boolean that a REST reply sets for this error, for example `invalidSeed`."""
    retryable: ClassVar[bool] = False
    """Whether the same request may work later."""
    suggested_action: ClassVar[str | None] = None
    """What the user should do."""
    default_retry_after_s: ClassVar[float | None] = None
    """When to ask again, where whoever raises it doesn't know better."""

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            message,
            field=field,
            violations=violations,
            retry_after_s=self.default_retry_after_s if retry_after_s is None else retry_after_s,
            metadata=metadata,
        )


class InvalidRequest(GatewayError):
    """A field is bad; nothing was stored or charged."""

    reason = "INVALID_REQUEST"
    grpc_status = StatusCode.INVALID_ARGUMENT
    http_status = 400
    suggested_action = "Correct the request and send it again."


class UnknownJobType(InvalidRequest):
    """The catalog has no such job type, or none was named.

    `name` is what was named, or None; `valid` lists what there is.
    """

    reason = "UNKNOWN_JOB_TYPE"
    suggested_action = "Choose one of the job types listed."

    def __init__(self, name: str | None, *, valid: Sequence[str], field: str = "jobType") -> None:
        found = "A job type is required" if name is None else "There is no such job type"
        super().__init__(f"{found}. Valid job types: {', '.join(valid)}.", field=field)


class InvalidPrompt(InvalidRequest):
    """The prompt or the negative prompt can't be used."""

    reason = "INVALID_PROMPT"
    suggested_action = "Change the prompt."


class PromptRefused(InvalidPrompt):
    """The prompt policy does not let the prompt pass. Its message never says which rule it was."""

    reason = "PROMPT_REFUSED"
    suggested_action = "Ask for something else."


class InvalidQuantity(InvalidRequest):
    """The job type can't make this many outputs."""

    reason = "INVALID_QUANTITY"
    flag = "invalidQuantity"
    suggested_action = "Choose one of the quantities listed."


class InvalidSeed(InvalidRequest):
    """The seed is not an integer from 0 to 2³² − 1."""

    reason = "INVALID_SEED"
    flag = "invalidSeed"
    suggested_action = "Send an integer from 0 to 4294967295, or no seed for a random one."


class InvalidReferenceImage(InvalidRequest):
    """A reference image, its type or its strength can't be used."""

    reason = "INVALID_REFERENCE_IMAGE"
    flag = "referenceImageError"
    suggested_action = "Correct the field, or leave the reference image out."


class FileTooLarge(InvalidRequest):
    """An uploaded file is over the limit."""

    reason = "FILE_TOO_LARGE"
    grpc_status = StatusCode.RESOURCE_EXHAUSTED
    http_status = 413
    flag = "referenceImageError"
    suggested_action = "Choose a smaller file."


class StorageQuotaExceeded(InvalidRequest):
    """The user's reference images would take more than they may."""

    reason = "STORAGE_QUOTA_EXCEEDED"
    grpc_status = StatusCode.RESOURCE_EXHAUSTED
    http_status = 413
    flag = "referenceImageError"
    suggested_action = "Delete reference images that you no longer need."


class BodyTooLarge(InvalidRequest):
    """The body of a REST request is over the limit."""

    http_status = 413
    suggested_action = "Send less."


class Unauthenticated(GatewayError):
    """There is no token, or it can't be trusted."""

    reason = "UNAUTHENTICATED"
    grpc_status = StatusCode.UNAUTHENTICATED
    http_status = 401
    suggested_action = "Sign in and send a valid token."


class PermissionDenied(GatewayError):
    """The caller's role does not allow this."""

    reason = "PERMISSION_DENIED"
    grpc_status = StatusCode.PERMISSION_DENIED
    http_status = 403


class InsufficientCredits(GatewayError):
    """The user can't pay for the job."""

    reason = "INSUFFICIENT_CREDITS"
    grpc_status = StatusCode.FAILED_PRECONDITION
    http_status = 402
    suggested_action = "Get more credits."


class JobNotFound(GatewayError):
    """There is no job with this id, or it is another user's: the two look the same on purpose.

    `job_id` is None when what was asked for is no job id at all.
    """

    reason = "JOB_NOT_FOUND"
    grpc_status = StatusCode.NOT_FOUND
    http_status = 404

    def __init__(self, job_id: UUID | None = None) -> None:
        super().__init__("There is no such job." if job_id is None else f"There is no job {job_id}.")


class AssetNotFound(GatewayError):
    """There is no asset with this id, or it is another user's: the two look the same on purpose."""

    reason = "ASSET_NOT_FOUND"
    grpc_status = StatusCode.NOT_FOUND
    http_status = 404

    def __init__(self) -> None:
        super().__init__("There is no such asset.")


class ReferenceImageNotFound(GatewayError):
    """There is no reference image with this id, or it is another user's: the two look the same on purpose."""

    reason = "REFERENCE_IMAGE_NOT_FOUND"
    grpc_status = StatusCode.NOT_FOUND
    http_status = 404

    def __init__(self) -> None:
        super().__init__("There is no such reference image.")


class DeliveryNotFound(GatewayError):
    """There is no webhook delivery with this id."""

    reason = "DELIVERY_NOT_FOUND"
    grpc_status = StatusCode.NOT_FOUND
    http_status = 404

    def __init__(self) -> None:
        super().__init__("There is no such delivery.")


class DeliveryInProgress(GatewayError):
    """The webhook is being sent right now."""

    reason = "DELIVERY_IN_PROGRESS"
    grpc_status = StatusCode.FAILED_PRECONDITION
    http_status = 409
    retryable = True
    default_retry_after_s = 30.0


class JobNotQuarantined(GatewayError):
    """The job is not in quarantine, so there is nothing to release it from."""

    reason = "JOB_NOT_QUARANTINED"
    grpc_status = StatusCode.FAILED_PRECONDITION
    http_status = 409


class IdempotencyConflict(GatewayError):
    """Another request was sent under the same idempotency key."""

    reason = "IDEMPOTENCY_CONFLICT"
    grpc_status = StatusCode.ALREADY_EXISTS
    http_status = 422
    suggested_action = "Use a new key for a new request."


class RateLimited(GatewayError):
    """The user asks too often, or has too many jobs that have not ended."""

    reason = "RATE_LIMITED"
    grpc_status = StatusCode.RESOURCE_EXHAUSTED
    http_status = 429
    retryable = True
    default_retry_after_s = 5.0
    suggested_action = "Slow down and try again."


class NoRenderer(GatewayError):
    """No address is configured for the renderer that the job type needs."""

    reason = "NO_RENDERER"
    grpc_status = StatusCode.UNAVAILABLE
    http_status = 503
    repeated_at_once = False
    suggested_action = "Choose another job type, or ask the operator for a renderer of this kind."


class QueueFull(GatewayError):
    """Too many jobs wait for the renderer that the job type needs."""

    reason = "QUEUE_FULL"
    grpc_status = StatusCode.UNAVAILABLE
    http_status = 503
    repeated_at_once = False
    retryable = True
    default_retry_after_s = 5.0
    suggested_action = "Try again in a little while."


class DatabaseUnavailable(GatewayError):
    """The database is out of reach."""

    reason = "DATABASE_UNAVAILABLE"
    grpc_status = StatusCode.UNAVAILABLE
    http_status = 503
    retryable = True
    default_retry_after_s = 5.0
    suggested_action = "Try again in a little while."


class StorageUnavailable(GatewayError):
    """The object storage is out of reach."""

    reason = "STORAGE_UNAVAILABLE"
    grpc_status = StatusCode.UNAVAILABLE
    http_status = 503
    retryable = True
    default_retry_after_s = 5.0
    suggested_action = "Try again in a little while."


class ModerationUnavailable(GatewayError):
    """The moderation endpoint can't be asked, and nothing passes without it."""

    reason = "UNAVAILABLE"
    grpc_status = StatusCode.UNAVAILABLE
    http_status = 503
    retryable = True
    default_retry_after_s = 5.0
    suggested_action = "Try again in a little while."


class IdentityProviderUnavailable(GatewayError):
    """The keys that tokens are signed with can't be fetched, so no token can be checked."""

    reason = "UNAVAILABLE"
    grpc_status = StatusCode.UNAVAILABLE
    http_status = 503
    retryable = True
    default_retry_after_s = 5.0
    suggested_action = "Try again in a little while."
