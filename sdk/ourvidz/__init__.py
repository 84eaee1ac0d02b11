"""OurVidz's client: ask for pictures, watch them being made, fetch them.

`Client` is the way in. Importing this package loads no gRPC and no HTTP library: names are loaded when first used, so
that a program which only needs the stubs or an exception pays for nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ourvidz.client import Client
    from ourvidz.errors import OurVidzError
    from ourvidz.jobs import Asset, Job, JobEvent, JobPage, JobStage, JobState, Step
    from ourvidz.references import ReferenceImage, ReferenceType

__all__ = [
    "Asset",
    "Client",
    "Job",
    "JobEvent",
    "JobPage",
    "JobStage",
    "JobState",
    "OurVidzError",
    "ReferenceImage",
    "ReferenceType",
    "Step",
]

_HOMES = {
    "Asset": "ourvidz.jobs",
    "Client": "ourvidz.client",
    "Job": "ourvidz.jobs",
    "JobEvent": "ourvidz.jobs",
    "JobPage": "ourvidz.jobs",
    "JobStage": "ourvidz.jobs",
    "JobState": "ourvidz.jobs",
    "OurVidzError": "ourvidz.errors",
    "ReferenceImage": "ourvidz.references",
    "ReferenceType": "ourvidz.references",
    "Step": "ourvidz.jobs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
