"""What a caller of a server is told when its engine fails, beside the errors that every server has.

Aborted
├── EngineLost        ENGINE_DIED       ABORTED
├── OutOfMemory       OUT_OF_MEMORY     ABORTED
└── FailedInEngine    ENGINE_FAILED     ABORTED
Unavailable
└── ModelNotLoaded    MODEL_NOT_LOADED  UNAVAILABLE
"""

from __future__ import annotations

from ourvidz_serving.engines.engine import (
    EngineDied,
    EngineError,
    EngineFailed,
    EngineNotReady,
    EngineOutOfMemory,
    InvalidForEngine,
)
from ourvidz_serving.errors import Aborted, Internal, InvalidRequest, ServiceError, Unavailable

LOADING_RETRY_S = 5.0
"""When to ask a server again that is loading its model."""


class EngineLost(Aborted):
    """The engine process died in the middle of the work."""

    reason = "ENGINE_DIED"


class OutOfMemory(Aborted):
    """The engine ran out of memory, and nothing was left to try."""

    reason = "OUT_OF_MEMORY"


class FailedInEngine(Aborted):
    """The engine raised something unforeseen, or did not do what it was asked for."""

    reason = "ENGINE_FAILED"


class ModelNotLoaded(Unavailable):
    """The model is being loaded, or can't be; nothing was started."""

    reason = "MODEL_NOT_LOADED"


def from_engine(error: EngineError) -> ServiceError:
    """Return what a caller is told of an engine's failure."""
    match error:
        case InvalidForEngine():
            return InvalidRequest(str(error))
        case EngineNotReady():
            return ModelNotLoaded(f"the model is not loaded: {error}", retry_after_s=LOADING_RETRY_S)
        case EngineDied():
            return EngineLost(str(error))
        case EngineOutOfMemory():
            return OutOfMemory(str(error))
        case EngineFailed():
            return FailedInEngine(str(error))
        case _:
            return Internal("the server failed")
