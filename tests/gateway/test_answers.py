"""What of a renderer's answers is believed."""

from __future__ import annotations

from uuid import UUID

import pytest

from ourvidz.api.render.v1 import render_pb2
from ourvidz_gateway.answers import Nonsense, check_event, check_finished, check_outputs
from ourvidz_gateway.plan import RenderPlan, plan_to_request
from support.jobs import painted_job

PLAN = RenderPlan.from_json(painted_job(steps=20, images=3).request)
REQUEST = plan_to_request(PLAN, "job/1", "alice", UUID(int=7), 1)


def output(index: int = 0, **changes: object) -> render_pb2.Output:
    """An output that could be, but for what `changes` say."""
    stated = {
        "bucket": REQUEST.output.bucket,
        "key": f"{REQUEST.output.prefix}/{index}.png",
        "mime_type": "image/png",
        "size_bytes": 1000,
        "sha256": bytes(32),
        "width_px": PLAN.width_px,
        "height_px": PLAN.height_px,
    }
    return render_pb2.Output(**{**stated, **changes})


def step(index: int = 5, **stated: int) -> render_pb2.RenderResponse:
    return render_pb2.RenderResponse(
        index=index, step=render_pb2.Step(**{"step_count": 20, "image_count": 3, **stated})
    )


def test_what_was_asked_for_is_believed():
    check_finished(render_pb2.Finished(outputs=[output(0), output(1), output(2)]), REQUEST, PLAN)
    check_event(step(step=20, image_index=2), PLAN, seen=4)
    # Towards a reference picture, a render takes only some of the steps.
    check_event(step(step=8, step_count=8), PLAN, seen=4)
    # Previews have no index.
    check_event(render_pb2.RenderResponse(preview=render_pb2.Preview(jpeg=b"x")), PLAN, seen=4)


def test_a_cancelled_render_may_have_stored_fewer():
    check_outputs([output(0)], REQUEST, PLAN, complete=False)
    with pytest.raises(Nonsense, match="1 outputs instead of 3"):
        check_outputs([output(0)], REQUEST, PLAN, complete=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"bucket": "another"},
        {"key": "bob/0.png"},
        {"key": f"{REQUEST.output.prefix}0/0.png"},
        {"key": ""},
        {"size_bytes": 0},
        {"size_bytes": PLAN.max_bytes + 1},
        {"size_bytes": 2**64 - 1},
        {"width_px": PLAN.width_px + 1},
        {"height_px": 2**32 - 1},
        {"sha256": bytes(16)},
        {"mime_type": "text/html"},
        {"key": f"{REQUEST.output.prefix}/1.png"},
    ],
    ids=str,
)
def test_an_output_that_cannot_be_is_not_believed(changes):
    with pytest.raises(Nonsense):
        check_outputs([output(0, **changes), output(1), output(2)], REQUEST, PLAN, complete=True)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_more_or_fewer_outputs_are_not_believed(count):
    finished = render_pb2.Finished(outputs=[output(index) for index in range(count)])
    with pytest.raises(Nonsense, match=f"{count} outputs instead of 3"):
        check_finished(finished, REQUEST, PLAN)


def test_endless_warnings_are_not_believed():
    finished = render_pb2.Finished(outputs=[output(0), output(1), output(2)], warnings=["again"] * 101)
    with pytest.raises(Nonsense, match="101 warnings"):
        check_finished(finished, REQUEST, PLAN)


@pytest.mark.parametrize(
    "event",
    [
        step(step=0),
        step(step=21),
        step(step=2, step_count=1),
        step(step=21, step_count=21),
        step(step=1, image_index=3),
        step(step=1, image_count=4),
        step(index=4, step=1),
        step(index=2**64 - 1, step=1),
        render_pb2.RenderResponse(index=5),
    ],
    ids=lambda event: " ".join(str(event).split()),
)
def test_an_event_that_cannot_be_is_not_believed(event):
    with pytest.raises(Nonsense):
        check_event(event, PLAN, seen=4)
