"""Every rule that `render.proto` and the engine's limits set for a request."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.errors import InvalidRequest, PromptRefused
from ourvidz_serving.rendering.engine import EngineInfo
from ourvidz_serving.rendering.validation import check_limits, check_request
from support.renderer import BUCKET, REFERENCES, ask, ask_clip

ENGINE = EngineInfo("painter", "none", [(64, 48), (128, 48), (128, 96)], 4, 0, 50)
CLIPS_ONLY = EngineInfo("wan", "none", [(64, 96)], 0, 81, 50)

Change = Callable[[render_pb2.RenderRequest], object]


def check(request: render_pb2.RenderRequest, *, takes_clips: bool = True) -> None:
    check_request(request, buckets=[BUCKET], reference_buckets=[BUCKET, REFERENCES], takes_clips=takes_clips)


def refused(check: Callable[[], None]) -> list[str]:
    """The fields that a check names."""
    with pytest.raises(InvalidRequest) as caught:
        check()
    assert all(violation.description for violation in caught.value.violations)
    return [violation.field for violation in caught.value.violations]


def stored(bucket: str = REFERENCES, key: str = "k", sha256: bytes = bytes(32)) -> render_pb2.ImageSource:
    return render_pb2.ImageSource(stored=render_pb2.StoredImage(bucket=bucket, key=key, sha256=sha256))


def inline(data: bytes) -> render_pb2.ImageSource:
    return render_pb2.ImageSource(inline=data)


BAD_SOURCES = [
    ("", render_pb2.ImageSource()),
    (".inline", inline(b"")),
    (".inline", inline(bytes(10 * 1024 * 1024 + 1))),
    (".stored.bucket", stored(bucket="")),
    (".stored.bucket", stored(bucket="somebody-elses")),
    (".stored.key", stored(key="")),
    (".stored.sha256", stored(sha256=bytes(31))),
]


def refer(source: render_pb2.ImageSource) -> Change:
    return lambda request: request.images.reference.source.CopyFrom(source)


def begin(source: render_pb2.ImageSource) -> Change:
    return lambda request: request.clip.start_frame.CopyFrom(source)


def end(source: render_pb2.ImageSource) -> Change:
    return lambda request: request.clip.end_frame.CopyFrom(source)


def put(path: str, value: object) -> Change:
    """Set the field at a path."""

    def change(request: render_pb2.RenderRequest) -> None:
        *parents, name = path.split(".")
        message: object = request
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, name, value)

    return change


def keep(milliseconds: int) -> Change:
    return lambda request: request.keep.FromMilliseconds(milliseconds)


def last(milliseconds: int, *, frames: int = 8) -> Change:
    """Let a clip of so many frames play so long."""

    def change(request: render_pb2.RenderRequest) -> None:
        request.clip.frame_count = frames
        request.clip.duration.FromMilliseconds(milliseconds)

    return change


@pytest.mark.parametrize(
    ("field", "change"),
    [
        *[
            ("render_id", put("render_id", bad))
            for bad in ("", "a" * 201, "a b", "é", "/a", "a/", "a//b", ".", "a/../b")
        ],
        ("output.bucket", put("output.bucket", "")),
        ("output.bucket", put("output.bucket", "another")),
        *[
            ("output.prefix", put("output.prefix", bad))
            for bad in ("", "a" * 501, "/a", "a/", "a//b", "a/./b", "..", "a\\b", "a\nb", "a\x7f")
        ],
        ("images", lambda request: request.ClearField("images")),
        ("images.sampling.prompt", put("images.sampling.prompt", "")),
        ("images.sampling.prompt", put("images.sampling.prompt", "狐" * 10_001)),
        ("images.sampling.negative_prompt", put("images.sampling.negative_prompt", "a" * 10_001)),
        *[("images.sampling.step_count", put("images.sampling.step_count", bad)) for bad in (0, 201)],
        *[
            ("images.sampling.guidance_scale", put("images.sampling.guidance_scale", bad))
            for bad in (-0.1, 30.1, math.nan, math.inf)
        ],
        ("images.sampling.sampler", put("images.sampling.sampler", 99)),
        *[("images.sampling.flow_shift", put("images.sampling.flow_shift", bad)) for bad in (0.0, 20.1, math.nan)],
        ("images.width_px", put("images.width_px", 0)),
        ("images.height_px", put("images.height_px", 0)),
        *[("images.image_count", put("images.image_count", bad)) for bad in (0, 7)],
        *[(f"images.reference.source{field}", refer(bad)) for field, bad in BAD_SOURCES],
        ("images.reference.source", lambda request: request.images.reference.SetInParent()),
        *[
            (
                "images.reference.influence",
                lambda request, bad=bad: (refer(stored())(request), put("images.reference.influence", bad)(request)),
            )
            for bad in (-0.1, 1.1, math.nan)
        ],
        (
            "images.reference.type",
            lambda request: (refer(stored())(request), put("images.reference.type", 99)(request)),
        ),
        ("on_disconnect", put("on_disconnect", 99)),
        *[("keep", keep(bad)) for bad in (0, 999, 3_600_001, -5_000)],
    ],
)
def test_a_request_that_breaks_a_rule_is_refused_with_the_field(field: str, change: Change) -> None:
    request = ask()
    change(request)
    assert refused(lambda: check(request)) == [field]


@pytest.mark.parametrize(
    "change",
    [
        lambda request: None,
        put("render_id", "a" * 200),
        put("render_id", "Job-1.x_y/2"),
        put("output.prefix", "ü" * 500),
        put("images.sampling.prompt", "狐" * 10_000),
        put("images.sampling.negative_prompt", "a" * 10_000),
        put("images.sampling.step_count", 200),
        put("images.sampling.guidance_scale", 0.0),
        put("images.sampling.guidance_scale", 30.0),
        put("images.sampling.flow_shift", 0.1),
        put("images.sampling.sampler", render_pb2.SAMPLER_UNIPC),
        put("images.image_count", 6),
        refer(stored()),
        refer(inline(bytes(10 * 1024 * 1024))),
        put("on_disconnect", render_pb2.ON_DISCONNECT_KEEP),
        keep(1_000),
        keep(3_600_000),
    ],
)
def test_a_request_at_the_edge_of_the_rules_is_taken(change: Change) -> None:
    request = ask()
    change(request)
    check(request)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("clip.sampling.prompt", put("clip.sampling.prompt", "")),
        ("clip.sampling.step_count", put("clip.sampling.step_count", 0)),
        ("clip.sampling.guidance_scale", put("clip.sampling.guidance_scale", math.nan)),
        ("clip.width_px", put("clip.width_px", 0)),
        ("clip.height_px", put("clip.height_px", 0)),
        *[("clip.frame_count", put("clip.frame_count", bad)) for bad in (0, 162)],
        ("clip.duration", lambda request: request.clip.ClearField("duration")),
        *[("clip.duration", last(bad)) for bad in (0, -1_000, 60_001, 10**12)],
        ("clip.duration", last(33, frames=8)),
        *[("clip.conditioning_scale", put("clip.conditioning_scale", bad)) for bad in (-0.1, 1.1, math.nan)],
        *[(f"clip.start_frame{field}", begin(bad)) for field, bad in BAD_SOURCES],
        *[(f"clip.end_frame{field}", end(bad)) for field, bad in BAD_SOURCES],
    ],
)
def test_a_clip_that_breaks_a_rule_is_refused_with_the_field(field: str, change: Change) -> None:
    request = ask_clip()
    change(request)
    assert refused(lambda: check(request)) == [field]


@pytest.mark.parametrize(
    "change",
    [
        lambda request: None,
        last(60_000, frames=1),
        last(5_000, frames=161),
        last(34, frames=8),
        put("clip.conditioning_scale", 0.0),
        put("clip.conditioning_scale", 1.0),
        begin(inline(bytes(10 * 1024 * 1024))),
        end(stored(bucket=BUCKET)),
    ],
)
def test_a_clip_at_the_edge_of_the_rules_is_taken(change: Change) -> None:
    request = ask_clip()
    change(request)
    check(request)


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
@pytest.mark.parametrize(("work", "request_of"), [("images", ask), ("clip", ask_clip)])
def test_a_prompt_below_the_floor_is_refused_with_the_field(
    work: str, request_of: Callable[[], render_pb2.RenderRequest], field: str
) -> None:
    request = request_of()
    put(f"{work}.sampling.{field}", "naked child")(request)
    with pytest.raises(PromptRefused, match="is not allowed here") as caught:
        check(request)
    assert [violation.field for violation in caught.value.violations] == [f"{work}.sampling.{field}"]


def test_a_negative_prompt_is_judged_as_a_list_and_beside_its_prompt() -> None:
    request = ask("nude woman")
    request.images.sampling.negative_prompt = "child, kids, nsfw"
    check(request)
    request.images.sampling.negative_prompt = "adult"
    with pytest.raises(PromptRefused):
        check(request)


def test_a_renderer_that_encodes_no_clips_refuses_them() -> None:
    request = ask_clip()
    with pytest.raises(InvalidRequest, match="makes still images only"):
        check(request, takes_clips=False)
    assert refused(lambda: check(request, takes_clips=False)) == ["clip"]


def test_the_buckets_that_may_be_read_are_named() -> None:
    request = ask_clip(start_frame=stored(bucket="somebody-elses"))
    with pytest.raises(InvalidRequest, match=f"must be one of {BUCKET}, {REFERENCES}"):
        check(request)


def test_all_bad_fields_are_named_at_once_and_the_first_in_the_message() -> None:
    request = render_pb2.RenderRequest()
    with pytest.raises(InvalidRequest, match=r"^render_id: .* \(and 3 more\)$") as caught:
        check(request)
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["render_id", "output.bucket", "output.prefix", "images"]


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        (["images.sampling.step_count"], put("images.sampling.step_count", 51)),
        (["images.image_count"], put("images.image_count", 5)),
        (["images.width_px"], put("images.width_px", 65)),
        (["images.height_px"], put("images.height_px", 49)),
        (["images.width_px", "images.height_px"], put("images.height_px", 96)),
    ],
)
def test_a_request_over_the_engines_limits_is_refused_with_the_field(fields: list[str], change: Change) -> None:
    request = ask()
    change(request)
    assert refused(lambda: check_limits(request, ENGINE)) == fields


def test_the_allowed_values_are_named() -> None:
    request = ask()
    request.images.width_px = 65
    with pytest.raises(InvalidRequest, match="64×48, 128×48, 128×96"):
        check_limits(request, ENGINE)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        (["clip.frame_count"], put("clip.frame_count", 82)),
        (["clip.sampling.step_count"], put("clip.sampling.step_count", 51)),
        (["clip.width_px"], put("clip.width_px", 65)),
        (["clip.height_px"], put("clip.height_px", 97)),
    ],
)
def test_a_clip_over_the_engines_limits_is_refused_with_the_field(field: list[str], change: Change) -> None:
    request = ask_clip(frames=81)
    check_limits(request, CLIPS_ONLY)
    change(request)
    assert refused(lambda: check_limits(request, CLIPS_ONLY)) == field


def test_an_engine_refuses_the_kind_of_work_that_it_does_not_do() -> None:
    with pytest.raises(InvalidRequest, match=r"images\.image_count: this renderer makes none"):
        check_limits(ask(), CLIPS_ONLY)
    with pytest.raises(InvalidRequest, match=r"clip\.frame_count: this renderer makes none"):
        check_limits(ask_clip(), ENGINE)
