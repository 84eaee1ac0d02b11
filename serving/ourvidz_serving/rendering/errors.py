"""What a caller of a renderer is told when a render fails, beside those of every server and every engine.

NotFound
└── RenderNotFound       RENDER_NOT_FOUND     NOT_FOUND
AlreadyExists
└── RenderExists         RENDER_EXISTS        ALREADY_EXISTS
FailedPrecondition
└── OutputTooLarge       OUTPUT_TOO_LARGE     FAILED_PRECONDITION
Cancelled
└── RenderStopped        CANCELLED            CANCELLED
Unavailable
└── StorageUnavailable   STORAGE_UNAVAILABLE  UNAVAILABLE
"""

from __future__ import annotations

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.errors import (
    AlreadyExists,
    Cancelled,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    ServiceError,
    Unavailable,
)
from ourvidz_serving.storage import InvalidKey, StoreError, StoreUnavailable

STORAGE_RETRY_S = 5.0
"""When to ask a renderer again that can't reach its storage."""


class RenderNotFound(NotFound):
    """Nothing is known under this render id, and nothing was to be started."""

    reason = "RENDER_NOT_FOUND"


class RenderExists(AlreadyExists):
    """Another request stands under this render id, or in the place where its outputs would go."""

    reason = "RENDER_EXISTS"


class OutputTooLarge(FailedPrecondition):
    """An output weighs more than the request allows."""

    reason = "OUTPUT_TOO_LARGE"


class RenderStopped(Cancelled):
    """The render was cancelled. `finished` lists the outputs that were stored before it stopped."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.finished = render_pb2.Finished()


class StorageUnavailable(Unavailable):
    """Object storage is out of reach, or refuses this renderer."""

    reason = "STORAGE_UNAVAILABLE"


def from_store(error: StoreError) -> ServiceError:
    """Return what a caller is told of storage's failure; how the store itself puts it is for operators."""
    match error:
        case InvalidKey():
            return InvalidRequest(str(error), field="output.prefix")
        case StoreUnavailable():
            return StorageUnavailable("object storage is out of reach", retry_after_s=STORAGE_RETRY_S)
        case _:
            return StorageUnavailable("object storage refuses this renderer", retry_after_s=STORAGE_RETRY_S)
