"""What can go wrong for a caller.

OurVidzError
├── InvalidRequest               a field is bad; nothing was stored or charged
│   ├── UnknownJobType
│   ├── InvalidPrompt
│   ├── InvalidQuantity
│   ├── InvalidSeed
│   ├── InvalidReferenceImage
│   └── FileTooLarge
├── Unauthenticated              no token, or one that is not accepted
├── PermissionDenied             the token's role may not do this
├── JobNotFound                  no such job, or another user's
├── InsufficientCredits
├── IdempotencyConflict          the request id was used for another request
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


class Unauthenticated(OurVidzError):
    """There is no token, or it is not accepted."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(OurVidzError):
    """The token's role may not do this."""

    reason = "PERMISSION_DENIED"


class JobNotFound(OurVidzError):
    """There is no job with this id, or it is another user's."""

    reason = "JOB_NOT_FOUND"


class InsufficientCredits(OurVidzError):
    """The user can't pay for the job."""

    reason = "INSUFFICIENT_CREDITS"


class IdempotencyConflict(OurVidzError):
    """The request id was used before, for another request."""

    reason = "IDEMPOTENCY_CONFLICT"


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
        InvalidQuantity,
        InvalidSeed,
        InvalidReferenceImage,
        FileTooLarge,
        Unauthenticated,
        PermissionDenied,
        JobNotFound,
        InsufficientCredits,
        IdempotencyConflict,
        Unavailable,
        NoRenderer,
        QueueFull,
        RateLimited,
        DatabaseUnavailable,
        StorageUnavailable,
    )
}
"""The exception for each reason that a server gives."""
