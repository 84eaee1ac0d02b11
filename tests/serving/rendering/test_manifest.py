from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.rendering.manifest import request_sha256
from support.renderer import ask


@pytest.mark.parametrize(
    "more",
    [
        {"on_disconnect": render_pb2.ON_DISCONNECT_KEEP},
        {"keep": Duration(seconds=5)},
        {"resume_from": 3},
        {"attach_only": True},
        {"previews": True},
    ],
)
def test_how_a_caller_watches_does_not_count(more: dict[str, object]) -> None:
    assert request_sha256(ask(**more)) == request_sha256(ask())


@pytest.mark.parametrize("other", [ask("a dog"), ask(seed=8), ask(seed=None), ask(images=2), ask(prefix="elsewhere")])
def test_what_is_made_and_where_it_goes_counts(other: render_pb2.RenderRequest) -> None:
    assert request_sha256(other) != request_sha256(ask())
    assert len(request_sha256(other)) == 32
