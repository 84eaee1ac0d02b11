"""What of a renderer's answers is believed: a renderer that has gone wrong must not put nonsense into the records."""

from __future__ import annotations

from ourvidz.api.render.v1 import render_pb2
from ourvidz_gateway.plan import RenderPlan

SHA256_BYTES = 32
MAX_WARNINGS = 100
MAX_INDEX = 2**53


class Nonsense(Exception):
    """A renderer answered what it can't have done; the text says what, for the log."""


def check_event(response: render_pb2.RenderResponse, plan: RenderPlan, *, seen: int) -> None:
    """Raise `Nonsense` unless an event can be one of this plan's render; `seen` is the index of the last one."""
    if response.index and not seen < response.index <= MAX_INDEX:
        raise Nonsense(f"event {response.index} came after event {seen}")
    match response.WhichOneof("event"):
        case None:
            raise Nonsense("an event says nothing")
        case "step":
            step = response.step
            # Towards a reference picture, a render takes only some of the plan's steps.
            if not 1 <= step.step <= step.step_count <= plan.step_count:
                raise Nonsense(f"step {step.step} of {step.step_count} in a render of {plan.step_count}")
            if not (step.image_index < plan.image_count == step.image_count):
                raise Nonsense(f"a step of image {step.image_index} of {step.image_count} in one of {plan.image_count}")


def check_outputs(
    outputs: list[render_pb2.Output], request: render_pb2.RenderRequest, plan: RenderPlan, *, complete: bool
) -> None:
    """Raise `Nonsense` unless these can be the outputs of a request; all of them if `complete`, else any."""
    expected = plan.image_count
    if len(outputs) > expected or (complete and len(outputs) < expected):
        raise Nonsense(f"{len(outputs)} outputs instead of {expected}")
    for output in outputs:
        if output.bucket != request.output.bucket or not output.key.startswith(f"{request.output.prefix}/"):
            raise Nonsense(f"an output at {output.bucket}/{output.key}, which is not its place")
        if not 0 < output.size_bytes <= plan.max_bytes:
            raise Nonsense(f"an output of {output.size_bytes} bytes; the limit is {plan.max_bytes}")
        if (output.width_px, output.height_px) != (plan.width_px, plan.height_px):
            raise Nonsense(f"an output of {output.width_px}×{output.height_px} pixels")
        if len(output.sha256) != SHA256_BYTES:
            raise Nonsense(f"a SHA-256 of {len(output.sha256)} bytes")
        if output.mime_type != ("image/png" if plan.frame_count is None else "video/mp4"):
            raise Nonsense(f"an output of type {output.mime_type!r}")
    if len({output.key for output in outputs}) < len(outputs):
        raise Nonsense("two outputs under one key")


def check_finished(finished: render_pb2.Finished, request: render_pb2.RenderRequest, plan: RenderPlan) -> None:
    """Raise `Nonsense` unless this can be the end of a request's render."""
    check_outputs(list(finished.outputs), request, plan, complete=True)
    if len(finished.warnings) > MAX_WARNINGS:
        raise Nonsense(f"{len(finished.warnings)} warnings")
