"""The rules that a request for a job must meet. Pure: nothing is read, stored or charged here.

What only the database knows, which of the user's own files a reference's URL names, is brought along.

Both fronts bring what came in as a `JobDraft`, with nothing checked, so that the rules are the same in REST and gRPC.
Fields are named as REST names them (`metadata.seed`). None, an empty string and a missing field are the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeGuard
from uuid import uuid4

from ourvidz_gateway.catalog import Catalog, JobType
from ourvidz_gateway.draft import METADATA_FIELDS, REFERENCE_URLS, JobDraft, absent, read_id
from ourvidz_gateway.errors import (
    InvalidPrompt,
    InvalidQuantity,
    InvalidReferenceImage,
    InvalidRequest,
    InvalidSeed,
    UnknownJobType,
)
from ourvidz_gateway.extras import check_extras
from ourvidz_gateway.jobs import NewJob
from ourvidz_gateway.plan import OwnFile, Reference, ReferenceRole, ReferenceType, RenderPlan
from ourvidz_gateway.text import is_prose, quoted
from ourvidz_gateway.urls import url_fault
from ourvidz_serving.pictures import MAX_FILE_BYTES

CONFIG_FIELDS = frozenset({"num_images", "seed"})
"""The keys of `config`; each wins over the same key of `metadata`."""

DEFAULT_STRENGTH = 0.5

MAX_PROMPT_CHARACTERS = 10_000
MAX_SEED = 2**32 - 1
MAX_CREDITS = 2**31 - 1
MAX_START_TIMEOUT_S = 86_400


def admit(
    draft: JobDraft,
    user_id: str,
    catalog: Catalog,
    *,
    reference_hosts: Collection[str] = (),
    webhook_hosts: Collection[str] = (),
    allow_http: bool = False,
    own_files: Mapping[str, OwnFile | None] | None = None,
) -> NewJob:
    """Check a draft and settle all that its stages need.

    `own_files` says which of the user's files each reference URL of ours names; None: there is no such file.

    Raises `UnknownJobType`, `InvalidPrompt`, `InvalidQuantity`, `InvalidSeed`, `InvalidReferenceImage` or
    `InvalidRequest`, each with the field's path.
    """
    job_type = _job_type(draft.job_type, catalog)
    metadata = _object(draft.metadata, "metadata")
    config = _object(draft.config, "config")
    _check_config_keys(config)
    prompt = _prompt(metadata)
    negative_prompt = _negative_prompt(metadata)
    image_count = _image_count(metadata, config, job_type)
    seed = _seed(metadata, config)
    references = _references(
        metadata, job_type, hosts=reference_hosts, allow_http=allow_http, own_files=own_files or {}
    )
    reference_type = _reference_type(metadata, job_type)
    reference_strength = _strength(metadata)
    price = _credits(metadata, job_type)
    _check_bucket(metadata, job_type)
    check_extras({key: value for key, value in metadata.items() if key not in METADATA_FIELDS})
    webhook_url = _webhook(draft.webhook_url, webhook_hosts, allow_http=allow_http)
    start_timeout_s = _start_timeout(draft.start_timeout_s)
    project_id = read_id(draft.project_id, "projectId")
    video_id = read_id(draft.video_id, "videoId")
    image_id = read_id(draft.image_id, "imageId")
    idempotency_key = draft.checked_key()

    plan = replace(
        _plan(job_type, prompt=prompt, negative_prompt=negative_prompt, seed=seed, image_count=image_count),
        references=references,
        reference_type=reference_type,
        reference_strength=reference_strength,
    )
    return NewJob(
        id=uuid4(),
        user_id=user_id,
        job_type=job_type.name,
        kind=plan.kind_of(plan.stages[0]),
        request=plan.to_json(),
        metadata=_as_kept(metadata, prompt, negative_prompt),
        credits=price,
        project_id=project_id,
        video_id=video_id,
        image_id=image_id,
        webhook_url=webhook_url,
        start_timeout_s=start_timeout_s,
        idempotency_key=idempotency_key,
        fingerprint=draft.fingerprint(),
    )


def _plan(job_type: JobType, *, prompt: str, negative_prompt: str, seed: int, image_count: int) -> RenderPlan:
    recipe = job_type.recipe
    return RenderPlan(
        kind=job_type.kind,
        enhanced=job_type.enhanced,
        model_variant=job_type.model_variant,
        prompt=prompt,
        negative_prompt=negative_prompt,
        seed=seed,
        image_count=image_count,
        width_px=recipe.width_px,
        height_px=recipe.height_px,
        frame_count=recipe.frame_count,
        duration_s=recipe.duration_s,
        step_count=recipe.step_count,
        guidance_scale=recipe.guidance_scale,
        sampler=recipe.sampler,
        flow_shift=recipe.flow_shift,
        bucket=job_type.bucket,
        max_bytes=job_type.max_bytes,
        deadline_s=job_type.deadline_s,
    )


def _as_kept(metadata: Mapping[str, Any], prompt: str, negative_prompt: str) -> dict[str, Any]:
    """Return the metadata as it came in, but trimmed: a short prompt can't bring a megabyte of blanks along."""
    kept = {**metadata, "prompt": prompt}
    if "negative_prompt" in metadata:
        kept["negative_prompt"] = negative_prompt
    return kept


def _job_type(value: Any, catalog: Catalog) -> JobType:
    if absent(value):
        raise UnknownJobType(None, valid=list(catalog.job_types))
    if not isinstance(value, str):
        raise UnknownJobType(str(value), valid=list(catalog.job_types))
    return catalog.get(value)


def _prompt(metadata: Mapping[str, Any]) -> str:
    prompt = _prose(metadata, "prompt", "The prompt")
    if not prompt:
        raise InvalidPrompt("A prompt is required.", field="metadata.prompt")
    return prompt


def _negative_prompt(metadata: Mapping[str, Any]) -> str:
    return _prose(metadata, "negative_prompt", "The negative prompt")


def _prose(metadata: Mapping[str, Any], key: str, subject: str) -> str:
    value, field = metadata.get(key), f"metadata.{key}"
    if absent(value):
        return ""
    if not isinstance(value, str):
        raise InvalidPrompt(f"{subject} must be a string.", field=field)
    text = value.strip()
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise InvalidPrompt(
            f"{subject} has {len(text):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are allowed.", field=field
        )
    if not is_prose(text):
        raise InvalidPrompt(f"{subject} has a control character; only newline and tab are allowed.", field=field)
    return text


def _image_count(metadata: Mapping[str, Any], config: Mapping[str, Any], job_type: JobType) -> int:
    chosen = job_type.image_counts[0]
    for field, value in _either(metadata, config, "num_images"):
        if not _is_integer(value) or value not in job_type.image_counts:
            raise InvalidQuantity(f"{job_type.name} makes {_amount(job_type)} at a time.", field=field)
        chosen = value
    return chosen


def _seed(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    chosen = None
    for field, value in _either(metadata, config, "seed"):
        if not _is_integer(value) or not 0 <= value <= MAX_SEED:
            raise InvalidSeed(f"The seed must be an integer from 0 to {MAX_SEED}.", field=field)
        chosen = value
    # Drawn here and not by the renderer, so that a retry renders the same picture.
    return secrets.randbits(32) if chosen is None else chosen


def _references(
    metadata: Mapping[str, Any],
    job_type: JobType,
    *,
    hosts: Collection[str],
    allow_http: bool,
    own_files: Mapping[str, OwnFile | None],
) -> tuple[Reference, ...]:
    references = []
    for key, role in REFERENCE_URLS.items():
        url, field = metadata.get(key), f"metadata.{key}"
        if absent(url):
            continue
        if role is ReferenceRole.IMAGE and not job_type.supports_reference:
            raise InvalidReferenceImage(f"{job_type.name} takes no reference image.", field=field)
        if role is not ReferenceRole.IMAGE and not job_type.supports_frames:
            raise InvalidReferenceImage(f"{job_type.name} takes no start or end frame.", field=field)
        if isinstance(url, str) and url in own_files:
            references.append(_own_reference(role, url, own_files[url], field))
        elif fault := url_fault(url, hosts, setting="OURVIDZ_REFERENCE_HOSTS", allow_http=allow_http):
            raise InvalidReferenceImage(f"The reference image can't be used: {fault}.", field=field)
        else:
            references.append(Reference(role, str(url)))
    return tuple(references)


def _own_reference(role: ReferenceRole, url: str, own: OwnFile | None, field: str) -> Reference:
    # Another user's file looks the same as one that never was.
    if own is None:
        raise InvalidReferenceImage("There is no such reference image here.", field=field)
    if not own.mime_type.startswith("image/"):
        raise InvalidReferenceImage("The reference image can't be used: it is no picture.", field=field)
    if own.size_bytes > MAX_FILE_BYTES:
        raise InvalidReferenceImage(
            f"The reference image can't be used: it is over {MAX_FILE_BYTES / 2**20:g} MB.", field=field
        )
    return Reference(role, url, own_id=own.id, stored=own.stored)


def _reference_type(metadata: Mapping[str, Any], job_type: JobType) -> ReferenceType:
    value, field = metadata.get("reference_type"), "metadata.reference_type"
    if absent(value):
        return ReferenceType.STYLE
    if not job_type.supports_reference:
        raise InvalidReferenceImage(f"{job_type.name} takes no reference image.", field=field)
    if not isinstance(value, str) or value not in list(ReferenceType):
        raise InvalidReferenceImage(f"The reference type must be {_listed(list(ReferenceType))}.", field=field)
    return ReferenceType(value)


def _strength(metadata: Mapping[str, Any]) -> float:
    given = []
    for key in ("reference_strength", "similarity_strength"):
        value = metadata.get(key)
        if absent(value):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InvalidReferenceImage(
                "The reference strength must be a number from 0.0 to 1.0.", field=f"metadata.{key}"
            )
        given.append(float(value))
    if len(given) == 2 and given[0] != given[1]:
        raise InvalidReferenceImage(
            "reference_strength and similarity_strength mean the same; send one of them, or the same value in both.",
            field="metadata.similarity_strength",
        )
    return given[0] if given else DEFAULT_STRENGTH


def _credits(metadata: Mapping[str, Any], job_type: JobType) -> int:
    value = metadata.get("credits")
    if absent(value):
        return job_type.price
    if not _is_integer(value) or not job_type.price <= value <= MAX_CREDITS:
        raise InvalidRequest(
            f"Credits must be an integer, and at least {job_type.price} for {job_type.name}.", field="metadata.credits"
        )
    return value


def _check_bucket(metadata: Mapping[str, Any], job_type: JobType) -> None:
    bucket = metadata.get("bucket")
    own = (job_type.bucket, job_type.bucket.replace("-", "_"))
    if not absent(bucket) and bucket not in own:
        raise InvalidRequest(
            f"The bucket follows from the job type; for {job_type.name} it is {job_type.bucket}.",
            field="metadata.bucket",
        )


def _webhook(url: Any, hosts: Collection[str], *, allow_http: bool) -> str | None:
    if absent(url):
        return None
    if fault := url_fault(url, hosts, setting="OURVIDZ_WEBHOOK_HOSTS", allow_http=allow_http):
        raise InvalidRequest(f"The webhook URL can't be used: {fault}.", field="webhookUrl")
    return str(url)


def _start_timeout(value: Any) -> float | None:
    if absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MAX_START_TIMEOUT_S:
        raise InvalidRequest(
            f"The time to start must be 1 to {MAX_START_TIMEOUT_S:,} seconds.", field="startTimeoutSeconds"
        )
    return float(value)


def _check_config_keys(config: Mapping[str, Any]) -> None:
    unknown = sorted(config.keys() - CONFIG_FIELDS)
    if unknown:
        raise InvalidRequest(
            f"config has an unknown field: {quoted(unknown[0])}. Known are {_listed(sorted(CONFIG_FIELDS), 'and')}.",
            field="config",
        )


def _object(value: Any, field: str) -> Mapping[str, Any]:
    if absent(value):
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{field} must be a JSON object.", field=field)
    return value


def _either(metadata: Mapping[str, Any], config: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    """Return the values given for a key that has two places, with their paths; the one that wins comes last."""
    places = ((f"metadata.{key}", metadata.get(key)), (f"config.{key}", config.get(key)))
    return [(field, value) for field, value in places if not absent(value)]


def _is_integer(value: Any) -> TypeGuard[int]:
    # JSON's true is a Python int, and 3.0 is a float: neither is an integer here.
    return isinstance(value, int) and not isinstance(value, bool)


def _amount(job_type: JobType) -> str:
    if job_type.is_clip:
        return "1 clip"
    if not job_type.supports_counts:
        return "1 image"
    return f"{_listed([str(count) for count in job_type.image_counts])} images"


def _listed(words: Collection[str], conjunction: str = "or") -> str:
    *rest, last = words
    return f"{', '.join(rest)} {conjunction} {last}" if rest else last
