"""What a render request must be like: the rules of `render.proto`, and the limits of the engine."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from ourvidz.api.render.v1 import render_pb2
from ourvidz.rpc_status import FieldViolation
from ourvidz_serving.errors import InvalidRequest, PromptRefused
from ourvidz_serving.pictures import MAX_FILE_BYTES
from ourvidz_serving.prompt_floor import floor_violation, negative_floor_violation
from ourvidz_serving.rendering.engine import EngineInfo
from ourvidz_serving.rendering.work import sampling_of, size_of, sources_of

_MAX_FRAME_COUNT = 161
_LONGEST_CLIP_S = 60
_MAX_FRAME_RATE = 240
"""Frames a second; what is shown faster is a mistake, and more than a decoder must take."""

_RENDER_ID = re.compile(r"[A-Za-z0-9._/-]{1,200}")
_UNFIT_FOR_KEYS = re.compile(r"[\x00-\x1f\x7f\\]")


def check_request(
    request: render_pb2.RenderRequest,
    *,
    buckets: Collection[str],
    reference_buckets: Collection[str],
    takes_clips: bool,
) -> None:
    """Raise `InvalidRequest`, naming every bad field, if the request breaks a rule that holds for any engine.

    Raises `PromptRefused` for a prompt or a negative prompt below the prompt policy's floor: whoever calls a renderer
    directly meets it as users of a gateway do. `buckets` are those that outputs may go to, and `reference_buckets` those that reference pictures may lie in.
    """
    _refuse(
        [
            *_render_id(request.render_id),
            *_output(request.output, buckets),
            *_work(request, takes_clips=takes_clips),
            *_references(request, reference_buckets),
            *_enum("on_disconnect", request.on_disconnect, render_pb2.OnDisconnect.items()),
            *_keep(request),
        ]
    )
    _check_floor(f"{request.WhichOneof('work')}.sampling", sampling_of(request))


def check_limits(request: render_pb2.RenderRequest, engine: EngineInfo) -> None:
    """Raise `InvalidRequest`, naming every bad field, if the request asks for more than the engine can make."""
    size, work = size_of(request), request.WhichOneof("work")
    if work == "clip":
        violations = list(_range("clip.frame_count", request.clip.frame_count, 1, engine.max_frame_count))
    else:
        violations = list(_range("images.image_count", request.images.image_count, 1, engine.max_image_count))
    violations += _range(f"{work}.sampling.step_count", sampling_of(request).step_count, 1, engine.max_step_count)
    if size not in engine.sizes:
        known = ", ".join(f"{width}×{height}" for width, height in engine.sizes)
        wrong = f"no such size: {size[0]}×{size[1]}; this renderer makes {known}"
        fields = (f"{work}.width_px", f"{work}.height_px")
        bad = [axis for axis in (0, 1) if size[axis] not in {each[axis] for each in engine.sizes}]
        # Where each side exists, but not with the other one, both fields are to blame.
        violations += [FieldViolation(fields[axis], wrong) for axis in bad or (0, 1)]
    _refuse(violations)


def check_render_id(render_id: str) -> None:
    """Raise `InvalidRequest` unless the name is one that a render can have."""
    _refuse(list(_render_id(render_id)))


def _refuse(violations: list[FieldViolation]) -> None:
    if violations:
        first, more = violations[0], len(violations) - 1
        message = f"{first.field}: {first.description}" + (f" (and {more} more)" if more else "")
        raise InvalidRequest(message, violations=violations)


def _render_id(render_id: str) -> Iterator[FieldViolation]:
    if not _RENDER_ID.fullmatch(render_id):
        yield FieldViolation("render_id", "must be 1 to 200 characters of letters, digits, '.', '_', '-' and '/'")
    elif not _plain_parts(render_id):
        yield FieldViolation("render_id", "must have no empty, '.' or '..' part")


def _check_floor(path: str, sampling: render_pb2.Sampling) -> None:
    if floor_violation(sampling.prompt):
        raise PromptRefused("The prompt is not allowed here.", field=f"{path}.prompt")
    if negative_floor_violation(sampling.negative_prompt, sampling.prompt):
        raise PromptRefused("The negative prompt is not allowed here.", field=f"{path}.negative_prompt")


def _output(output: render_pb2.OutputLocation, buckets: Collection[str]) -> Iterator[FieldViolation]:
    if output.bucket not in buckets:
        yield FieldViolation("output.bucket", f"must be one of {', '.join(sorted(buckets))}")
    if not 1 <= len(output.prefix) <= 500:
        yield FieldViolation("output.prefix", "must be 1 to 500 characters")
    elif not _plain_parts(output.prefix) or _UNFIT_FOR_KEYS.search(output.prefix):
        yield FieldViolation(
            "output.prefix",
            "must have no slash at either end, no empty, '.' or '..' part, no backslash and no control character",
        )


def _work(request: render_pb2.RenderRequest, *, takes_clips: bool) -> Iterator[FieldViolation]:
    match request.WhichOneof("work"):
        case "images":
            yield from _images(request.images)
        case "clip" if takes_clips:
            yield from _clip(request.clip)
        case "clip":
            yield FieldViolation("clip", "this renderer makes still images only; set images")
        case _:
            yield FieldViolation("images", "is required: what to render")


def _images(images: render_pb2.ImageBatch) -> Iterator[FieldViolation]:
    yield from _sampling("images.sampling", images.sampling)
    yield from _range("images.image_count", images.image_count, 1, 6)
    yield from _sides("images", images)
    if images.HasField("reference"):
        yield from _enum("images.reference.type", images.reference.type, render_pb2.ReferenceType.items())
        yield from _range("images.reference.influence", images.reference.influence, 0.0, 1.0)


def _clip(clip: render_pb2.Clip) -> Iterator[FieldViolation]:
    yield from _sampling("clip.sampling", clip.sampling)
    yield from _sides("clip", clip)
    yield from _range("clip.frame_count", clip.frame_count, 1, _MAX_FRAME_COUNT)
    seconds = clip.duration.seconds + clip.duration.nanos / 1e9
    if not 0.0 < seconds <= _LONGEST_CLIP_S:
        yield FieldViolation("clip.duration", f"is required: more than 0 s, at most {_LONGEST_CLIP_S} s")
    elif clip.frame_count > seconds * _MAX_FRAME_RATE:
        yield FieldViolation("clip.duration", f"is too short: at most {_MAX_FRAME_RATE} frames a second are shown")
    if clip.HasField("conditioning_scale"):
        yield from _range("clip.conditioning_scale", clip.conditioning_scale, 0.0, 1.0)


def _sides(path: str, work: render_pb2.ImageBatch | render_pb2.Clip) -> Iterator[FieldViolation]:
    for side in ("width_px", "height_px"):
        if not getattr(work, side):
            yield FieldViolation(f"{path}.{side}", "is required: pixels")


def _sampling(path: str, sampling: render_pb2.Sampling) -> Iterator[FieldViolation]:
    if not 1 <= len(sampling.prompt) <= 10_000:
        yield FieldViolation(f"{path}.prompt", "must be 1 to 10,000 characters")
    if len(sampling.negative_prompt) > 10_000:
        yield FieldViolation(f"{path}.negative_prompt", "must be at most 10,000 characters")
    yield from _range(f"{path}.step_count", sampling.step_count, 1, 200)
    yield from _range(f"{path}.guidance_scale", sampling.guidance_scale, 0.0, 30.0)
    yield from _enum(f"{path}.sampler", sampling.sampler, render_pb2.Sampler.items())
    if sampling.HasField("flow_shift"):
        yield from _range(f"{path}.flow_shift", sampling.flow_shift, 0.1, 20.0)


def _references(request: render_pb2.RenderRequest, buckets: Collection[str]) -> Iterator[FieldViolation]:
    for path, source in sources_of(request).values():
        yield from _source(path, source, buckets)


def _source(path: str, source: render_pb2.ImageSource, buckets: Collection[str]) -> Iterator[FieldViolation]:
    match source.WhichOneof("source"):
        case "inline":
            if not 1 <= len(source.inline) <= MAX_FILE_BYTES:
                yield FieldViolation(f"{path}.inline", "must be a file of 1 byte to 10 MiB")
        case "stored":
            # Or whoever may render could read whatever lies in storage.
            if source.stored.bucket not in buckets:
                yield FieldViolation(f"{path}.stored.bucket", f"must be one of {', '.join(sorted(buckets))}")
            if not source.stored.key:
                yield FieldViolation(f"{path}.stored.key", "is required")
            if len(source.stored.sha256) != 32:
                yield FieldViolation(f"{path}.stored.sha256", "must be 32 bytes")
        case _:
            yield FieldViolation(path, "is required: stored or inline")


def _keep(request: render_pb2.RenderRequest) -> Iterator[FieldViolation]:
    if request.HasField("keep") and not 1.0 <= request.keep.seconds + request.keep.nanos / 1e9 <= 3600.0:
        yield FieldViolation("keep", "must be 1 s to 1 h")


def _range(field: str, value: float, low: float, high: float) -> Iterator[FieldViolation]:
    # Written so that NaN, which compares with nothing, is out of range.
    if not low <= value <= high:
        wrong = f"must be {low} to {high}" if high >= low else "this renderer makes none"
        yield FieldViolation(field, wrong)


def _enum(field: str, value: int, items: Sequence[tuple[str, int]]) -> Iterator[FieldViolation]:
    # Enums are open in proto3: a number that no version of the contract names arrives as it is.
    if value not in [number for _, number in items]:
        yield FieldViolation(field, f"must be one of {', '.join(name for name, _ in items)}")


def _plain_parts(path: str) -> bool:
    return all(part not in ("", ".", "..") for part in path.split("/"))
