"""What a caller of a renderer is told when a render fails, beside the errors that every server has.

NotFound
└── RenderNotFound       RENDER_NOT_FOUND     NOT_FOUND
AlreadyExists
└── RenderExists         RENDER_EXISTS        ALREADY_EXISTS
FailedPrecondition
└── OutputTooLarge       OUTPUT_TOO_LARGE     FAILED_PRECONDITION
Aborted
├── RenderLostEngine     ENGINE_DIED          ABORTED
├── RenderOutOfMemory    OUT_OF_MEMORY        ABORTED
└── RenderFailedInEngine ENGINE_FAILED        ABORTED
Cancelled
└── RenderStopped        CANCELLED            CANCELLED
Unavailable
├── ModelNotLoaded       MODEL_NOT_LOADED     UNAVAILABLE
└── StorageUnavailable   STORAGE_UNAVAILABLE  UNAVAILABLE
"""

# the names say what is wrong, and a suffix would say nothing more

from __future__ import annotations

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.engines.engine import (
    EngineDied,
    EngineError,
    EngineFailed,
    EngineNotReady,
    EngineOutOfMemory,
    InvalidForEngine,
)
from ourvidz_serving.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    FailedPrecondition,
    Internal,
    InvalidRequest,
    NotFound,
    ServiceError,
    Unavailable,
)
from ourvidz_serving.storage import InvalidKey, StoreError, StoreUnavailable

LOADING_RETRY_S = 5.0
"""When to ask a renderer again that is loading its model."""

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


class RenderLostEngine(Aborted):
    """The engine process died in the middle of the render."""

    reason = "ENGINE_DIED"


class RenderOutOfMemory(Aborted):
    """The engine ran out of memory, and nothing was left to try."""

    reason = "OUT_OF_MEMORY"


class RenderFailedInEngine(Aborted):
    """The engine raised something unforeseen."""

    reason = "ENGINE_FAILED"


class RenderStopped(Cancelled):
    """The render was cancelled. `finished` lists the outputs that were stored before it stopped."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.finished = render_pb2.Finished()


class ModelNotLoaded(Unavailable):
    """The model is being loaded, or can't be; nothing was started."""

    reason = "MODEL_NOT_LOADED"


class StorageUnavailable(Unavailable):
    """Object storage is out of reach, or refuses this renderer."""

    reason = "STORAGE_UNAVAILABLE"


def from_engine(error: EngineError) -> ServiceError:
    """Return what a caller is told of an engine's failure."""
    match error:
        case InvalidForEngine():
            return InvalidRequest(str(error))
        case EngineNotReady():
            return ModelNotLoaded(f"the model is not loaded: {error}", retry_after_s=LOADING_RETRY_S)
        case EngineDied():
            return RenderLostEngine(str(error))
        case EngineOutOfMemory():
            return RenderOutOfMemory(str(error))
        case EngineFailed():
            return RenderFailedInEngine(str(error))
        case _:
            return Internal("the renderer failed")


def from_store(error: StoreError) -> ServiceError:
    """Return what a caller is told of storage's failure; how the store itself puts it is for operators."""
    match error:
        case InvalidKey():
            return InvalidRequest(str(error), field="output.prefix")
        case StoreUnavailable():
            return StorageUnavailable("object storage is out of reach", retry_after_s=STORAGE_RETRY_S)
        case _:
            return StorageUnavailable("object storage refuses this renderer", retry_after_s=STORAGE_RETRY_S)
