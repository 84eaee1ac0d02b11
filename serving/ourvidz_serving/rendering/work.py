"""What a request asks for, whichever of the two kinds of work it is."""

from __future__ import annotations

from fractions import Fraction

from ourvidz.api.render.v1 import render_pb2

_NANOSECONDS = 10**9


def sampling_of(request: render_pb2.RenderRequest) -> render_pb2.Sampling:
    """Return how to denoise."""
    return request.clip.sampling if request.HasField("clip") else request.images.sampling


def size_of(request: render_pb2.RenderRequest) -> tuple[int, int]:
    """Return width and height of what is made, in pixels."""
    work = request.clip if request.HasField("clip") else request.images
    return work.width_px, work.height_px


def output_count(request: render_pb2.RenderRequest) -> int:
    """Return how many files are made."""
    return 1 if request.HasField("clip") else request.images.image_count


def sources_of(request: render_pb2.RenderRequest) -> dict[str, tuple[str, render_pb2.ImageSource]]:
    """Return the reference pictures by what they are for, each with the path of its field.

    The names are those of `RenderTask.pictures`.
    """
    images, clip = request.images, request.clip
    sources = {}
    if images.HasField("reference"):
        sources["reference"] = ("images.reference.source", images.reference.source)
    if clip.HasField("start_frame"):
        sources["start_frame"] = ("clip.start_frame", clip.start_frame)
    if clip.HasField("end_frame"):
        sources["end_frame"] = ("clip.end_frame", clip.end_frame)
    return sources


def frame_rate(clip: render_pb2.Clip) -> Fraction:
    """Return frames per second, exactly; the duration is not zero."""
    return clip.frame_count / (clip.duration.seconds + Fraction(clip.duration.nanos, _NANOSECONDS))
