"""What of a prompt Wan reads, and how it is encoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import diffusers
import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from ourvidz.api.render.v1 import render_pb2

MAX_TOKENS = 512
"""What the transformers were trained to read of a prompt, the end token included."""
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Embeddings:
    """An encoded prompt: 1 × 512 × width each. The negative one is None without guidance."""

    prompt: torch.Tensor
    negative: torch.Tensor | None


def encode(pipeline: diffusers.WanPipeline, sampling: render_pb2.Sampling, device: torch.device) -> Embeddings:
    """Encode the prompts of a render with the pipeline's text encoder, onto `device`."""
    prompt, negative = pipeline.encode_prompt(
        prompt=sampling.prompt,
        negative_prompt=sampling.negative_prompt,
        do_classifier_free_guidance=sampling.guidance_scale > 1.0,
        max_sequence_length=MAX_TOKENS,
        device=device,
    )
    return Embeddings(prompt, negative)


def cut_warnings(pipeline: diffusers.WanPipeline, sampling: render_pb2.Sampling) -> Iterator[str]:
    """Say which words of the prompts the model does not read."""
    room = MAX_TOKENS - 1
    for name, text in (("prompt", sampling.prompt), ("negative prompt", sampling.negative_prompt)):
        # Cleaned as the pipeline does it, or the count would be of another text.
        tokens = pipeline.tokenizer(prompt_clean(text), add_special_tokens=False, truncation=False).input_ids
        if len(tokens) > room:
            lost = pipeline.tokenizer.decode(tokens[room:]).strip()
            shown = lost if len(lost) <= _SHOWN else f"{lost[:_SHOWN].rstrip()}…"
            yield f"The {name} is longer than the model reads ({len(tokens)} of {room} tokens); left out: “{shown}”"
