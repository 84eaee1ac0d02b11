"""Every rule that `render.proto` and the engine's limits set for a request."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.errors import InvalidRequest
from ourvidz_serving.rendering.engine import EngineInfo
from ourvidz_serving.rendering.validation import check_limits, check_request
from support.renderer import BUCKET, ask

ENGINE = EngineInfo("painter", "none", [(64, 48), (128, 48), (128, 96)], 4, 0, 50)
NO_PICTURES = EngineInfo("wan", "none", [(64, 48)], 0, 81, 50)

Change = Callable[[render_pb2.RenderRequest], object]


def refused(check: Callable[[], None]) -> list[str]:
    """The fields that a check names."""
    with pytest.raises(InvalidRequest) as caught:
        check()
    assert all(violation.description for violation in caught.value.violations)
    return [violation.field for violation in caught.value.violations]


def stored(bucket: str = "b", key: str = "k", sha256: bytes = bytes(32)) -> render_pb2.ImageReference:
    image = render_pb2.StoredImage(bucket=bucket, key=key, sha256=sha256)
    return render_pb2.ImageReference(source=render_pb2.ImageSource(stored=image))


def inline(data: bytes) -> render_pb2.ImageReference:
    return render_pb2.ImageReference(source=render_pb2.ImageSource(inline=data))


def refer(reference: render_pb2.ImageReference) -> Change:
    return lambda request: request.images.reference.CopyFrom(reference)


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
        ("clip", lambda request: request.clip.CopyFrom(render_pb2.Clip(frame_count=83))),
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
        ("images.reference.source", refer(render_pb2.ImageReference(influence=0.5))),
        ("images.reference.source.inline", refer(inline(b""))),
        ("images.reference.source.inline", refer(inline(bytes(10 * 1024 * 1024 + 1)))),
        ("images.reference.source.stored.bucket", refer(stored(bucket=""))),
        ("images.reference.source.stored.key", refer(stored(key=""))),
        ("images.reference.source.stored.sha256", refer(stored(sha256=bytes(31)))),
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
    assert refused(lambda: check_request(request, [BUCKET])) == [field]


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
    check_request(request, [BUCKET])


def test_all_bad_fields_are_named_at_once_and_the_first_in_the_message() -> None:
    request = render_pb2.RenderRequest()
    with pytest.raises(InvalidRequest, match=r"^render_id: .* \(and 3 more\)$") as caught:
        check_request(request, [BUCKET])
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


def test_an_engine_that_makes_no_still_images_refuses_them() -> None:
    with pytest.raises(InvalidRequest, match="makes none"):
        check_limits(ask(), NO_PICTURES)
