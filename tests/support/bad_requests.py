"""Requests for a job that both fronts must refuse, each said in both tongues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ourvidz.api.jobs.v1 import jobs_pb2

URL = "https://images.example.com/cat.png"

OURS = "http://127.0.0.1:8000"
"""Where the fronts of the tests sign URLs for."""

UPLOAD = f"{OURS}/objects/reference-images/alice/8d3c3c5e-53a5-4a5c-9e0a-0d8c6d1f7b21?token=x"


@dataclass(frozen=True)
class BadRequest:
    """A request that must be refused, and how."""

    name: str
    reason: str
    rest: dict[str, Any]
    """The REST body."""
    rest_field: str
    rpc: dict[str, Any] | None = None
    """Arguments of CreateJobRequest; None where the message can't say it."""
    rpc_field: str = ""
    flag: str | None = None
    says: str = ""
    """A part of the message."""


def _sdxl(**metadata: Any) -> dict[str, Any]:
    return {"jobType": "sdxl_image_fast", "metadata": {"prompt": "a lighthouse", **metadata}}


def _sdxl_rpc(**fields: Any) -> dict[str, Any]:
    return {"job_type": "sdxl_image_fast", "prompt": "a lighthouse", **fields}


def _of(job_type: str, **metadata: Any) -> dict[str, Any]:
    return {"jobType": job_type, "metadata": {"prompt": "a lighthouse", **metadata}}


def _of_rpc(job_type: str, **fields: Any) -> dict[str, Any]:
    return {"job_type": job_type, "prompt": "a lighthouse", **fields}


def _type(name: str, rest: Any, rpc: str | None) -> BadRequest:
    return BadRequest(
        name,
        "UNKNOWN_JOB_TYPE",
        {**_sdxl(), "jobType": rest},
        "jobType",
        None if rpc is None else _of_rpc(rpc),
        "job_type",
        says="sdxl_image_fast, sdxl_image_high, image_fast",
    )


def _prompt(name: str, prompt: Any, *, says: str = "", rpc: bool = True) -> BadRequest:
    return BadRequest(
        name,
        "INVALID_PROMPT",
        _sdxl(prompt=prompt),
        "metadata.prompt",
        _sdxl_rpc(prompt=prompt) if rpc else None,
        "prompt",
        says=says,
    )


def _quantity(
    name: str, rest: dict[str, Any], rpc: dict[str, Any] | None, *, says: str, place="metadata"
) -> BadRequest:
    return BadRequest(
        name,
        "INVALID_QUANTITY",
        rest,
        f"{place}.num_images",
        rpc,
        "image_count",
        flag="invalidQuantity",
        says=says,
    )


def _seed(name: str, value: Any, *, rpc: bool = False) -> BadRequest:
    return BadRequest(
        name,
        "INVALID_SEED",
        _sdxl(seed=value),
        "metadata.seed",
        _sdxl_rpc(seed=value) if rpc else None,
        "seed",
        flag="invalidSeed",
        says="integer from 0 to 4294967295",
    )


def _reference(
    name: str, rest: dict[str, Any], rpc: dict[str, Any] | None, place: str, *, says: str = ""
) -> BadRequest:
    return BadRequest(
        name,
        "INVALID_REFERENCE_IMAGE",
        rest,
        f"metadata.{place}",
        rpc,
        place,
        flag="referenceImageError",
        says=says,
    )


def _other(name: str, rest: dict[str, Any], rest_field: str, rpc=None, rpc_field: str = "", *, says="") -> BadRequest:
    return BadRequest(name, "INVALID_REQUEST", rest, rest_field, rpc, rpc_field, says=says)


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"in": value}
    return value


BAD_REQUESTS = [
    _type("job type unknown", "sdxl_image_slow", "sdxl_image_slow"),
    _type("job type missing", None, ""),
    _type("job type empty", "", ""),
    _type("job type not a string", 7, None),
    _type("job type with NUL", "sdxl\0", "sdxl\0"),
    _type("job type with half a surrogate pair", "\ud800", None),
    _prompt("prompt missing", None, says="required", rpc=False),
    _prompt("prompt empty", "", says="required"),
    _prompt("prompt of blanks", " \n\t ", says="required"),
    _prompt("prompt of 100 kB", "a" * 100_000, says="100,000 characters"),
    _prompt("prompt one too long", "é" * 10_001, says="at most 10,000"),
    _prompt("prompt with NUL", "a\0b", says="control character"),
    _prompt("prompt with escape", "a\x1b[31mb", says="control character"),
    _prompt("prompt with half a surrogate pair", "a\udc00b", rpc=False),
    _prompt("prompt not a string", ["a"], says="string", rpc=False),
    BadRequest(
        "negative prompt one too long",
        "INVALID_PROMPT",
        _sdxl(negative_prompt="a" * 10_001),
        "metadata.negative_prompt",
        _sdxl_rpc(negative_prompt="a" * 10_001),
        "negative_prompt",
    ),
    _quantity("two images", _sdxl(num_images=2), _sdxl_rpc(image_count=2), says="1, 3 or 6 images"),
    _quantity("no images", _sdxl(num_images=0), _sdxl_rpc(image_count=0), says="1, 3 or 6 images"),
    _quantity("images less than none", _sdxl(num_images=-1), _sdxl_rpc(image_count=-1), says="1, 3 or 6 images"),
    _quantity("images as a string", _sdxl(num_images="3"), None, says="1, 3 or 6 images"),
    _quantity("images as a float", _sdxl(num_images=3.0), None, says="1, 3 or 6 images"),
    _quantity("images as a boolean", _sdxl(num_images=True), None, says="1, 3 or 6 images"),
    _quantity(
        "three WAN images", _of("image_fast", num_images=3), _of_rpc("image_fast", image_count=3), says="1 image"
    ),
    _quantity("three clips", _of("video_high", num_images=3), _of_rpc("video_high", image_count=3), says="1 clip"),
    _quantity(
        "bad quantity in config",
        {**_sdxl(num_images=3), "config": {"num_images": 2}},
        None,
        says="1, 3",
        place="config",
    ),
    _quantity(
        "bad quantity in metadata, good one in config",
        {**_sdxl(num_images=2), "config": {"num_images": 3}},
        None,
        says="1, 3 or 6",
    ),
    _seed("seed abc", "abc"),
    _seed("seed as a numeric string", "7"),
    _seed("seed as a float", 7.0),
    _seed("seed as a boolean", False),
    _seed("seed below 0", -1, rpc=True),
    _seed("seed over 32 bits", 2**32, rpc=True),
    _seed("seed far over 64 bits", 10**400),
    BadRequest(
        "bad seed in config",
        "INVALID_SEED",
        {**_sdxl(seed=1), "config": {"seed": "x"}},
        "config.seed",
        flag="invalidSeed",
    ),
    _reference(
        "reference on a WAN image",
        _of("image_fast", reference_image_url=URL),
        _of_rpc("image_fast", reference_image_url=URL),
        "reference_image_url",
        says="image_fast takes no reference image",
    ),
    _reference(
        "reference on a clip",
        _of("video_fast", reference_image_url=URL),
        _of_rpc("video_fast", reference_image_url=URL),
        "reference_image_url",
        says="takes no reference image",
    ),
    _reference(
        "reference type on a clip",
        _of("video_fast", reference_type="style"),
        _of_rpc("video_fast", reference_type=jobs_pb2.REFERENCE_TYPE_STYLE),
        "reference_type",
    ),
    _reference(
        "start frame on SDXL",
        _sdxl(start_reference_image_url=URL),
        _sdxl_rpc(start_reference_image_url=URL),
        "start_reference_image_url",
        says="takes no start or end frame",
    ),
    _reference(
        "end frame on a WAN image",
        _of("image_high", end_reference_image_url=URL),
        _of_rpc("image_high", end_reference_image_url=URL),
        "end_reference_image_url",
        says="takes no start or end frame",
    ),
    _reference(
        "host that is not allowed",
        _sdxl(reference_image_url=URL),
        _sdxl_rpc(reference_image_url=URL),
        "reference_image_url",
        says='"images.example.com" is not allowed',
    ),
    _reference(
        "reference that is no URL",
        _of("video_fast", end_reference_image_url="cat.png"),
        _of_rpc("video_fast", end_reference_image_url="cat.png"),
        "end_reference_image_url",
        says="https://",
    ),
    _reference(
        "upload that is not there",
        _sdxl(reference_image_url=UPLOAD),
        _sdxl_rpc(reference_image_url=UPLOAD),
        "reference_image_url",
        says="no such reference image",
    ),
    _reference(
        "start frame that is not there",
        _of("video_fast", start_reference_image_url=UPLOAD),
        _of_rpc("video_fast", start_reference_image_url=UPLOAD),
        "start_reference_image_url",
        says="no such reference image",
    ),
    _reference(
        "upload on a type that takes none",
        _of("image_fast", reference_image_url=UPLOAD),
        _of_rpc("image_fast", reference_image_url=UPLOAD),
        "reference_image_url",
        says="takes no reference image",
    ),
    _reference(
        "URL of ours that names no object",
        _sdxl(reference_image_url=f"{OURS}/healthz"),
        _sdxl_rpc(reference_image_url=f"{OURS}/healthz"),
        "reference_image_url",
        says="no such reference image",
    ),
    _reference(
        "upload's path on another port",
        _sdxl(reference_image_url=UPLOAD.replace("8000", "8001")),
        _sdxl_rpc(reference_image_url=UPLOAD.replace("8000", "8001")),
        "reference_image_url",
        says="https://",
    ),
    _reference(
        "upload's path on another host",
        _sdxl(reference_image_url=UPLOAD.replace(OURS, "https://evil.example")),
        _sdxl_rpc(reference_image_url=UPLOAD.replace(OURS, "https://evil.example")),
        "reference_image_url",
        says='"evil.example" is not allowed',
    ),
    _reference(
        "reference that is no string",
        _sdxl(reference_image_url=[URL]),
        None,
        "reference_image_url",
        says="must be a URL",
    ),
    _reference(
        "reference type unknown",
        _sdxl(reference_type="mood"),
        _sdxl_rpc(reference_type=99),
        "reference_type",
        says="style, composition or character",
    ),
    _reference(
        "strength over 1",
        _sdxl(reference_strength=1.01),
        _sdxl_rpc(reference_strength=1.01),
        "reference_strength",
        says="from 0.0 to 1.0",
    ),
    _reference(
        "strength not a number", _sdxl(similarity_strength="0.5"), None, "similarity_strength", says="from 0.0 to 1.0"
    ),
    _reference(
        "strength NaN over gRPC, a boolean over REST",
        _sdxl(reference_strength=True),
        _sdxl_rpc(reference_strength=float("nan")),
        "reference_strength",
    ),
    _reference(
        "two strengths that differ",
        _sdxl(reference_strength=0.5, similarity_strength=0.6),
        None,
        "similarity_strength",
        says="mean the same",
    ),
    _other("credits below the price", _sdxl(credits=0), "metadata.credits", _sdxl_rpc(credits=0), "credits"),
    _other("credits as a string", _sdxl(credits="1"), "metadata.credits"),
    _other("credits past any sum", _sdxl(credits=2**31), "metadata.credits"),
    _other(
        "another type's bucket",
        _sdxl(bucket="video-fast"),
        "metadata.bucket",
        _sdxl_rpc(metadata={"bucket": "video-fast"}),
        "metadata.bucket",
        says="sdxl-image-fast",
    ),
    _other("bucket not a string", _sdxl(bucket=["sdxl-image-fast"]), "metadata.bucket"),
    _other(
        "project id too long",
        {**_sdxl(), "projectId": "p" * 201},
        "projectId",
        _sdxl_rpc(project_id="p" * 201),
        "project_id",
        says="at most 200",
    ),
    _other(
        "video id with a newline", {**_sdxl(), "videoId": "a\nb"}, "videoId", _sdxl_rpc(video_id="a\nb"), "video_id"
    ),
    _other("image id not a string", {**_sdxl(), "imageId": 7}, "imageId"),
    _other(
        "webhook whose host is not allowed",
        {**_sdxl(), "webhookUrl": "https://hooks.example.com/x"},
        "webhookUrl",
        _sdxl_rpc(webhook_url="https://hooks.example.com/x"),
        "webhook_url",
        says="OURVIDZ_WEBHOOK_HOSTS",
    ),
    _other("metadata not an object", {**_sdxl(), "metadata": [1]}, "metadata"),
    _other("config not an object", {**_sdxl(), "config": "x"}, "config"),
    _other("unknown field in config", {**_sdxl(), "config": {"steps": 9}}, "config", says='"steps"'),
    _other("unknown field at the top", {**_sdxl(), "prompt": "a"}, "prompt", says='"prompt"'),
    _other("unknown field at the top with half a surrogate pair", {**_sdxl(), "\ud800": 1}, "\\ud800"),
    _other(
        "NUL in a key of the user's own",
        _sdxl(**{"a\0b": 1}),
        "metadata",
        _sdxl_rpc(metadata={"a\0b": 1}),
        "metadata",
    ),
    _other(
        "NUL deep in a value of the user's own",
        _sdxl(tags={"list": ["a", "b\0"]}),
        "metadata.tags.list[1]",
        _sdxl_rpc(metadata={"tags": {"list": ["a", "b\0"]}}),
        "metadata.tags.list[1]",
    ),
    _other("half a surrogate pair in a value of the user's own", _sdxl(tag="\ud800"), "metadata.tag"),
    _other("integer past every float", _sdxl(big=10**400), "metadata.big"),
    _other(
        "more than 16 kB of the user's own",
        _sdxl(notes="x" * 17_000),
        "metadata",
        _sdxl_rpc(metadata={"notes": "x" * 17_000}),
        "metadata",
        says="at most 16,384",
    ),
    _other(
        "values nested too deep",
        _sdxl(deep=_deep(20)),
        "metadata",
        _sdxl_rpc(metadata={"deep": _deep(20)}),
        "metadata",
        says="16 levels",
    ),
]
