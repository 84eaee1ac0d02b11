"""What a caller of the enhancer is told when its engine fails, beside the errors that every server has.

Aborted
├── EnhancerLostEngine     ENGINE_DIED       ABORTED
├── EnhancerOutOfMemory    OUT_OF_MEMORY     ABORTED
└── EnhancerFailed         ENGINE_FAILED     ABORTED
Unavailable
└── ModelNotLoaded         MODEL_NOT_LOADED  UNAVAILABLE
"""

from __future__ import annotations

from ourvidz_serving.engines.engine import (
    EngineDied,
    EngineError,
    EngineFailed,
    EngineNotReady,
    EngineOutOfMemory,
)
from ourvidz_serving.errors import Aborted, Internal, ServiceError, Unavailable

LOADING_RETRY_S = 5.0
"""When to ask an enhancer again that is loading its model."""


class EnhancerLostEngine(Aborted):
    """The engine process died in the middle of a text."""

    reason = "ENGINE_DIED"


class EnhancerOutOfMemory(Aborted):
    """The engine ran out of memory."""

    reason = "OUT_OF_MEMORY"


class EnhancerFailed(Aborted):
    """The engine raised something unforeseen, or the model wrote nothing."""

    reason = "ENGINE_FAILED"


class ModelNotLoaded(Unavailable):
    """The model is being loaded, or can't be; nothing was started."""

    reason = "MODEL_NOT_LOADED"


def from_engine(error: EngineError) -> ServiceError:
    """Return what a caller is told of an engine's failure."""
    match error:
        case EngineNotReady():
            return ModelNotLoaded(f"the model is not loaded: {error}", retry_after_s=LOADING_RETRY_S)
        case EngineDied():
            return EnhancerLostEngine(str(error))
        case EngineOutOfMemory():
            return EnhancerOutOfMemory(str(error))
        case EngineFailed():
            return EnhancerFailed(str(error))
        case _:
            return Internal("the enhancer failed")
