"""How full the service's queues are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue."""

    name: str
    """For example `sdxl_queue`."""
    depth: int
    """Jobs that wait in it."""
    running: int
    """Jobs of it that run."""
    oldest_wait_s: float | None
    """How long its oldest job has waited; None when none waits."""
    renderer_count: int
    """Renderers that can take its work now."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """All queues; the figures are at most a second old."""

    depth: int
    """Jobs that wait, in all queues."""
    queues: tuple[Queue, ...]
