"""How an output was made, in the text form that image tools read."""

from __future__ import annotations

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.rendering.work import sampling_of, size_of

_SAMPLER_NAMES = {
    render_pb2.SAMPLER_DPMPP_2M_KARRAS: "DPM++ 2M Karras",
    render_pb2.SAMPLER_EULER: "Euler",
    render_pb2.SAMPLER_UNIPC: "UniPC",
}


def describe(request: render_pb2.RenderRequest, *, seed: int, model: str) -> str:
    """Return how to make one output of a request again; no ids and no times.

    `seed` is this output's own. The text has the form that AUTOMATIC1111's web UI made common: the prompt, the
    negative prompt, and one line of settings. What the request left to the renderer is not named.
    """
    sampling = sampling_of(request)
    width_px, height_px = size_of(request)
    shifted = sampling.sampler == render_pb2.SAMPLER_UNIPC and sampling.HasField("flow_shift")
    settings = {
        "Steps": str(sampling.step_count),
        "Sampler": _SAMPLER_NAMES.get(sampling.sampler, ""),
        "Flow shift": f"{sampling.flow_shift:g}" if shifted else "",
        "CFG scale": f"{sampling.guidance_scale:g}",
        "Seed": str(seed),
        "Size": f"{width_px}x{height_px}",
        "Frames": str(request.clip.frame_count) if request.HasField("clip") else "",
        "Model": model,
    }
    lines = [sampling.prompt]
    if sampling.negative_prompt:
        lines.append(f"Negative prompt: {sampling.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items() if value))
    return "\n".join(lines)
