"""What is to become of a job, as a test has set it up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Script:
    """How one job goes; as written here, it completes at once."""

    fails: str | None = None
    """The error message that it ends with."""
    cancelled: bool = False
    """Whether it is cancelled, as if its user had done so elsewhere."""
    held: bool = False
    """Whether it stops until it is released or cancelled."""
    after_steps: int = 0
    """How many denoising steps are done before; with none, the job still waits in its queue."""
