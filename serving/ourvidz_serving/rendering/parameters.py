"""How a picture was made, in the text form that image tools read."""

from __future__ import annotations

from ourvidz.api.render.v1 import render_pb2

_SAMPLER_NAMES = {
    render_pb2.SAMPLER_DPMPP_2M_KARRAS: "DPM++ 2M Karras",
    render_pb2.SAMPLER_EULER: "Euler",
    render_pb2.SAMPLER_UNIPC: "UniPC",
}


def describe(batch: render_pb2.ImageBatch, *, seed: int, model: str) -> dict[str, str]:
    """Return the texts that one picture of a batch carries: how to make it again, no ids and no times.

    `seed` is this picture's own. `parameters` has the form that AUTOMATIC1111's web UI made common: the prompt, the
    negative prompt, and one line of settings. A sampler that the request left to the renderer is not named.
    """
    sampling = batch.sampling
    settings = {
        "Steps": str(sampling.step_count),
        "Sampler": _SAMPLER_NAMES.get(sampling.sampler, ""),
        "CFG scale": f"{sampling.guidance_scale:g}",
        "Seed": str(seed),
        "Size": f"{batch.width_px}x{batch.height_px}",
        "Model": model,
    }
    lines = [sampling.prompt]
    if sampling.negative_prompt:
        lines.append(f"Negative prompt: {sampling.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items() if value))
    return {"Software": "OurVidz", "parameters": "\n".join(lines)}
