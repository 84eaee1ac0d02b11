"""OurVidz's client: ask for pictures, watch them being made, fetch them.

`Client` is the way in, `AsyncClient` the same for asyncio, `AdminClient` for operators; `ourvidz.errors` draws what
they raise, and `ourvidz.testing` has a service for tests. Importing this package loads no gRPC and no HTTP library:
names are loaded when first used, so that a program which only needs the stubs or an exception pays for nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ourvidz.admin_client import AdminClient, AsyncAdminClient
    from ourvidz.assets import Asset
    from ourvidz.async_client import AsyncClient
    from ourvidz.client import Client
    from ourvidz.credits import Credits
    from ourvidz.deliveries import Delivery, DeliveryState
    from ourvidz.errors import JobCancelled, JobFailed, OurVidzError
    from ourvidz.generation import AsyncGeneration, Generation
    from ourvidz.job_options import JobOptions
    from ourvidz.jobs import Job, JobEvent, JobStage, JobState, Step
    from ourvidz.pages import Page
    from ourvidz.quarantine import QuarantinedJob
    from ourvidz.queues import Queue, QueueStatus
    from ourvidz.references import ReferenceImage, ReferenceType

__all__ = [
    "AdminClient",
    "Asset",
    "AsyncAdminClient",
    "AsyncClient",
    "AsyncGeneration",
    "Client",
    "Credits",
    "Delivery",
    "DeliveryState",
    "Generation",
    "Job",
    "JobCancelled",
    "JobEvent",
    "JobFailed",
    "JobOptions",
    "JobStage",
    "JobState",
    "OurVidzError",
    "Page",
    "QuarantinedJob",
    "Queue",
    "QueueStatus",
    "ReferenceImage",
    "ReferenceType",
    "Step",
]

_HOMES = {
    "AdminClient": "ourvidz.admin_client",
    "Asset": "ourvidz.assets",
    "AsyncAdminClient": "ourvidz.admin_client",
    "AsyncClient": "ourvidz.async_client",
    "AsyncGeneration": "ourvidz.generation",
    "Client": "ourvidz.client",
    "Credits": "ourvidz.credits",
    "Delivery": "ourvidz.deliveries",
    "DeliveryState": "ourvidz.deliveries",
    "Generation": "ourvidz.generation",
    "Job": "ourvidz.jobs",
    "JobCancelled": "ourvidz.errors",
    "JobEvent": "ourvidz.jobs",
    "JobFailed": "ourvidz.errors",
    "JobOptions": "ourvidz.job_options",
    "JobStage": "ourvidz.jobs",
    "JobState": "ourvidz.jobs",
    "OurVidzError": "ourvidz.errors",
    "Page": "ourvidz.pages",
    "QuarantinedJob": "ourvidz.quarantine",
    "Queue": "ourvidz.queues",
    "QueueStatus": "ourvidz.queues",
    "ReferenceImage": "ourvidz.references",
    "ReferenceType": "ourvidz.references",
    "Step": "ourvidz.jobs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
