from __future__ import annotations

import pytest

from ourvidz.api.render.v1 import render_pb2
from ourvidz_sdxl.conditioning import influence_of, text_arguments
from support.miniature import ask

STYLE, COMPOSITION, CHARACTER = (
    render_pb2.REFERENCE_TYPE_STYLE,
    render_pb2.REFERENCE_TYPE_COMPOSITION,
    render_pb2.REFERENCE_TYPE_CHARACTER,
)


@pytest.mark.parametrize(
    ("kind", "asked", "found"),
    [
        (render_pb2.REFERENCE_TYPE_UNSPECIFIED, 0.5, 0.5),
        (STYLE, 0.0, 0.0),
        (STYLE, 1.0, 1.0),
        (CHARACTER, 0.5, 0.5),
        (COMPOSITION, 0.0, 0.2),
        (COMPOSITION, 0.5, 0.7),
        (COMPOSITION, 0.8, 1.0),
        (COMPOSITION, 0.9, 1.0),
    ],
)
def test_composition_is_followed_more_closely_and_never_past_one(
    kind: render_pb2.ReferenceType.ValueType, asked: float, found: float
) -> None:
    assert influence_of(render_pb2.ImageReference(type=kind, influence=asked)) == pytest.approx(found)


def test_a_text_pipeline_is_told_size_and_steps() -> None:
    assert text_arguments(ask(side=512, steps=4).images) == {"width": 512, "height": 512, "num_inference_steps": 4}
