"""The rules that a request for a job must meet, as far as a program's own tests can run into them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value

from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.calls.messages import plain
from ourvidz.errors import (
    InvalidPrompt,
    InvalidQuantity,
    InvalidReferenceImage,
    InvalidRequest,
    InvalidSeed,
    OurVidzError,
    UnknownJobType,
)
from ourvidz.testing.catalog import JOB_TYPES, JobType
from ourvidz.testing.refusals import bad_field

MAX_PROMPT_CHARACTERS = 10_000
MAX_ID_CHARACTERS = 200
MAX_SEED = 2**32 - 1
MAX_START_TIMEOUT_S = 86_400
MAX_METADATA_BYTES = 16 * 2**10
MAX_METADATA_DEPTH = 16

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_PROSE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FIELDS = frozenset(
    {
        *("prompt", "negative_prompt", "num_images", "seed", "credits", "reference_type"),
        *("reference_image_url", "start_reference_image_url", "end_reference_image_url"),
        *("reference_strength", "similarity_strength"),
    }
)
"""Keys that may not stand in `metadata`, since they have a field of their own."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may become a job."""

    job_type: JobType
    prompt: str
    image_count: int
    credits: int
    metadata: Mapping[str, Any]
    """What the job shows of what came in."""


def admit(
    request: jobs_pb2.CreateJobRequest,
    *,
    is_own: Callable[[str], bool | None],
    reference_hosts: Collection[str],
    webhook_hosts: Collection[str],
) -> Admitted:
    """Check a request. Raises the error that the service would answer with, naming the bad field.

    `is_own` says whether a URL of ours names a picture of the caller's; None for a URL that is not ours.
    """
    if request.job_type not in JOB_TYPES:
        found = "There is no such job type" if request.job_type else "A job type is required"
        raise bad_field(UnknownJobType, f"{found}. Valid job types: {', '.join(JOB_TYPES)}.", "job_type")
    job_type = JOB_TYPES[request.job_type]
    prompt = _prose(request.prompt, "The prompt", "prompt")
    if not prompt:
        raise bad_field(InvalidPrompt, "A prompt is required.", "prompt")
    negative_prompt = _prose(request.negative_prompt, "The negative prompt", "negative_prompt")
    image_count = request.image_count if request.HasField("image_count") else job_type.image_counts[0]
    if image_count not in job_type.image_counts:
        raise bad_field(InvalidQuantity, f"{job_type.name} makes {job_type.amount} at a time.", "image_count")
    if request.HasField("seed") and not 0 <= request.seed <= MAX_SEED:
        raise bad_field(InvalidSeed, f"The seed must be an integer from 0 to {MAX_SEED}.", "seed")
    _check_references(request, job_type, is_own, reference_hosts)
    price = _price(request, job_type)
    extras = _extras(request.metadata, job_type)
    if request.webhook_url:
        _check_url(InvalidRequest, request.webhook_url, "webhook_url", "The webhook URL", webhook_hosts)
    _check_start_timeout(request)
    _check_ids(request)
    given = _given(request, prompt, negative_prompt)
    return Admitted(job_type, prompt, image_count, price, {**extras, **given})


def _given(request: jobs_pb2.CreateJobRequest, prompt: str, negative_prompt: str) -> dict[str, Any]:
    """Return the fields that the caller has set, under the names that they have in a job's metadata."""
    given: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative_prompt, **_references(request)}
    if request.reference_type:
        kind = jobs_pb2.ReferenceType.Name(request.reference_type)
        given["reference_type"] = kind.removeprefix("REFERENCE_TYPE_").lower()
    for field in ("reference_strength", "credits"):
        if request.HasField(field):
            given[field] = getattr(request, field)
    return {key: value for key, value in given.items() if value != ""}


def _prose(text: str, subject: str, field: str) -> str:
    text = text.strip()
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise bad_field(
            InvalidPrompt,
            f"{subject} has {len(text):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are allowed.",
            field,
        )
    if _CONTROL_IN_PROSE.search(text):
        raise bad_field(InvalidPrompt, f"{subject} has a control character; only newline and tab are allowed.", field)
    return text


def _price(request: jobs_pb2.CreateJobRequest, job_type: JobType) -> int:
    price = request.credits if request.HasField("credits") else job_type.price
    if price < job_type.price:
        raise bad_field(
            InvalidRequest,
            f"Credits must be an integer, and at least {job_type.price} for {job_type.name}.",
            "credits",
        )
    return price


def _check_start_timeout(request: jobs_pb2.CreateJobRequest) -> None:
    if not request.HasField("start_timeout"):
        return
    # Not by `ToTimedelta`, which fails on what no timedelta can hold.
    seconds = request.start_timeout.seconds + request.start_timeout.nanos / 1e9
    if not 1 <= seconds <= MAX_START_TIMEOUT_S:
        raise bad_field(
            InvalidRequest, f"The time to start must be 1 to {MAX_START_TIMEOUT_S:,} seconds.", "start_timeout"
        )


def _check_ids(request: jobs_pb2.CreateJobRequest) -> None:
    for field in ("project_id", "video_id", "image_id", "request_id"):
        value = getattr(request, field)
        if len(value) > MAX_ID_CHARACTERS or CONTROL.search(value):
            raise bad_field(
                InvalidRequest,
                f"{field} must be a string of at most {MAX_ID_CHARACTERS} characters, without control characters.",
                field,
            )


def _references(request: jobs_pb2.CreateJobRequest) -> dict[str, str]:
    return {
        "reference_image_url": request.reference_image_url,
        "start_reference_image_url": request.start_reference_image_url,
        "end_reference_image_url": request.end_reference_image_url,
    }


def _check_references(
    request: jobs_pb2.CreateJobRequest,
    job_type: JobType,
    is_own: Callable[[str], bool | None],
    hosts: Collection[str],
) -> None:
    kind = InvalidReferenceImage
    for field, url in _references(request).items():
        if not url:
            continue
        if field == "reference_image_url" and not job_type.takes_reference:
            raise bad_field(kind, f"{job_type.name} takes no reference image.", field)
        if field != "reference_image_url" and not job_type.takes_frames:
            raise bad_field(kind, f"{job_type.name} takes no start or end frame.", field)
        own = is_own(url)
        if own is False:
            raise bad_field(kind, "There is no such reference image here.", field)
        if own is None:
            _check_url(kind, url, field, "The reference image", hosts)
    _check_reference_type(request.reference_type, job_type)
    if request.HasField("reference_strength") and not 0 <= request.reference_strength <= 1:
        raise bad_field(kind, "The reference strength must be a number from 0.0 to 1.0.", "reference_strength")


def _check_reference_type(number: int, job_type: JobType) -> None:
    kind = InvalidReferenceImage
    if number and not job_type.takes_reference:
        raise bad_field(kind, f"{job_type.name} takes no reference image.", "reference_type")
    if number not in jobs_pb2.ReferenceType.values():
        raise bad_field(kind, "The reference type must be style, composition or character.", "reference_type")


def _check_url(kind: type[OurVidzError], url: str, field: str, subject: str, hosts: Collection[str]) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.netloc.lower(), parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme != "https" or not host:
        raise bad_field(kind, f"{subject} can't be used: it must start with https:// and name a host.", field)
    if host.removesuffix(":443") not in hosts:
        setting = "OURVIDZ_WEBHOOK_HOSTS" if field == "webhook_url" else "OURVIDZ_REFERENCE_HOSTS"
        raise bad_field(
            kind,
            f"{subject} can't be used: the host {json.dumps(host)} is not allowed; its operator lists allowed hosts in "
            f"{setting}.",
            field,
        )


def _extras(struct: Struct, job_type: JobType) -> dict[str, Any]:
    """Return the fields of the caller's own."""
    _check_numbers(Value(struct_value=struct), "metadata")
    extras: dict[str, Any] = plain(json_format.MessageToDict(struct))
    if taken := sorted(_FIELDS & extras.keys()):
        raise bad_field(InvalidRequest, f"{taken[0]} has a field of its own; it can't stand in metadata.", "metadata")
    bucket = extras.get("bucket")
    if bucket not in (None, "", job_type.bucket, job_type.bucket.replace("-", "_")):
        raise bad_field(
            InvalidRequest,
            f"The bucket follows from the job type; for {job_type.name} it is {job_type.bucket}.",
            "metadata.bucket",
        )
    for path, depth, text in _texts(extras, "metadata", 0):
        if depth > MAX_METADATA_DEPTH:
            raise bad_field(InvalidRequest, f"metadata is nested deeper than {MAX_METADATA_DEPTH} levels.", "metadata")
        if "\0" in text:
            raise bad_field(InvalidRequest, "A string in metadata has a NUL or half of a surrogate pair.", path)
    size = len(json.dumps(extras, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_METADATA_BYTES:
        raise bad_field(
            InvalidRequest,
            f"Fields of your own in metadata take {size:,} bytes; at most {MAX_METADATA_BYTES:,} are allowed.",
            "metadata",
        )
    return extras


def _check_numbers(value: Value, path: str) -> None:
    """Refuse what JSON has no form for."""
    if not math.isfinite(value.number_value):
        raise bad_field(InvalidRequest, "A number in metadata is beyond the range of a 64-bit float.", path)
    for key, inner in value.struct_value.fields.items():
        _check_numbers(inner, f"{path}.{key[:100]}")
    for index, inner in enumerate(value.list_value.values):
        _check_numbers(inner, f"{path}[{index}]")


def _texts(value: Any, path: str, depth: int) -> Iterator[tuple[str, int, str]]:
    """Yield the path, the depth and the text of each key and each value; a container's text is empty."""
    if isinstance(value, dict):
        yield path, depth + 1, ""
        for key, inner in value.items():
            yield path, depth, key
            yield from _texts(inner, f"{path}.{key[:100]}", depth + 1)
    elif isinstance(value, list):
        yield path, depth + 1, ""
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{path}[{index}]", depth + 1)
    elif isinstance(value, str):
        yield path, depth, value
