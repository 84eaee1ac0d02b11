"""What can be said about a job beyond its type and its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from ourvidz.references import ReferenceType


class JobOptions(TypedDict, total=False):
    """Options of a job that is asked for; None and a missing one are the same, and leave it to the service."""

    negative_prompt: str | None
    """What is not to be seen: at most 10,000 characters."""
    image_count: int | None
    """How many images: 1, 3 or 6 for SDXL types, 1 for all others. Default: 1."""
    seed: int | None
    """0 to 2³² − 1; one is drawn when it is absent."""
    reference_image_url: str | None
    """The picture that images of SDXL types follow: one that was uploaded or made here, or on an allowed host."""
    reference_type: ReferenceType | None
    """In what they follow it. Default: style."""
    start_reference_image_url: str | None
    """The picture that a clip starts with."""
    end_reference_image_url: str | None
    """The picture that a clip ends with."""
    reference_strength: float | None
    """How closely pictures are followed: 0.0 to 1.0, where 1.0 is closest. Default: 0.5."""
    credits: int | None
    """What the job may cost, at least its type's price. Default: the price."""
    project_id: str | None
    """The caller's own project, kept and returned: at most 200 characters. So are the two that follow."""
    video_id: str | None
    image_id: str | None
    webhook_url: str | None
    """Called when the job has ended; the operator must allow its host."""
    metadata: Mapping[str, Any] | None
    """More that is kept and returned with the job: JSON values, at most 16 kB in all."""
    start_timeout_s: float | None
    """The job fails if nobody has begun it within this time: 1 s to 24 h. Default: the operator's limit."""
    request_id: str | None
    """The same id within 24 hours answers with the same job. Default: a new one for each call."""
