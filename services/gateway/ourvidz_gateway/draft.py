"""A request for a job as it came in, over either front: JSON values under REST's names, with nothing checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ourvidz_gateway.errors import InvalidRequest
from ourvidz_gateway.plan import ReferenceRole
from ourvidz_gateway.text import is_plain

METADATA_FIELDS = frozenset(
    {
        "prompt",
        "negative_prompt",
        "num_images",
        "seed",
        "reference_image_url",
        "start_reference_image_url",
        "end_reference_image_url",
        "reference_strength",
        "similarity_strength",
        "reference_type",
        "credits",
        "bucket",
    }
)
"""The keys of `metadata` that mean something; all others are the caller's own, kept and returned."""

REFERENCE_URLS = {
    "reference_image_url": ReferenceRole.IMAGE,
    "start_reference_image_url": ReferenceRole.START_FRAME,
    "end_reference_image_url": ReferenceRole.END_FRAME,
}
"""The keys of `metadata` that name reference pictures."""

MAX_ID_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class JobDraft:
    """A request for a job as it came in: JSON values, nothing checked."""

    job_type: Any = None
    metadata: Any = None
    config: Any = None
    project_id: Any = None
    video_id: Any = None
    image_id: Any = None
    webhook_url: Any = None
    start_timeout_s: Any = None
    idempotency_key: Any = None

    def fingerprint(self) -> bytes:
        """Return the SHA-256 of all that was asked for, the same however it was said and over whichever front."""
        values = _stated(
            {each.name: getattr(self, each.name) for each in fields(self) if each.name != "idempotency_key"}
        )
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode(errors="replace")).digest()

    def checked_key(self) -> str | None:
        """Return the idempotency key, or None where there is none. Raises `InvalidRequest`."""
        return read_id(self.idempotency_key, "Idempotency-Key")

    @property
    def reference_urls(self) -> list[str]:
        """The URLs that are given for reference pictures, as far as they are strings."""
        metadata = self.metadata if isinstance(self.metadata, Mapping) else {}
        return [url for key in REFERENCE_URLS if isinstance(url := metadata.get(key), str) and url]


def absent(value: Any) -> bool:
    """Whether a value is as good as none was given."""
    return value is None or (isinstance(value, str) and value == "")


def read_id(value: Any, field: str) -> str | None:
    """Read an id of the caller's own; None where there is none. Raises `InvalidRequest`."""
    if absent(value):
        return None
    if not isinstance(value, str) or len(value) > MAX_ID_CHARACTERS or not is_plain(value):
        raise InvalidRequest(
            f"{field} must be a string of at most {MAX_ID_CHARACTERS} characters, without control characters.",
            field=field,
        )
    return value


def _stated(value: Any) -> Any:
    """Return a value without what is absent, and with whole numbers in one form: JSON and protobuf differ in both."""
    if isinstance(value, Mapping):
        return {key: _stated(each) for key, each in value.items() if not absent(each)}
    if isinstance(value, list):
        return [_stated(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
