"""Pictures that jobs follow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ReferenceType(StrEnum):
    """In what images follow their reference picture."""

    STYLE = "style"
    COMPOSITION = "composition"
    CHARACTER = "character"


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """A picture that was uploaded for jobs to follow."""

    id: str
    url: str
    """What a job's reference fields take, also when it opens no more."""
    url_expires_at: datetime | None
    filename: str
    """The name that the file had; empty if none was given."""
    mime_type: str
    size_bytes: int
    width_px: int
    height_px: int
    created_at: datetime | None
