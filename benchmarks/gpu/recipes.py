"""What is rendered: the catalog's job types, put to a renderer by the gateway's own code."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ourvidz.api.render.v1 import render_pb2
from ourvidz_gateway.admission import admit
from ourvidz_gateway.catalog import load_catalog
from ourvidz_gateway.draft import JobDraft
from ourvidz_gateway.jobs import Kind
from ourvidz_gateway.plan import RenderPlan, plan_to_request
from ourvidz_serving.rendering.engine import Pixels

PROMPT = "a lighthouse at dawn, waves break against the rocks, slow camera pan, cinematic light"
SEED = 2026
CUT_STEPS = 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way of rendering, under the name that the table shows."""

    name: str
    job_type: str
    kind: Kind
    request: render_pb2.RenderRequest
    pictures: dict[str, Pixels] = field(default_factory=dict)
    """The clip's start and end frames, where it has some."""

    @property
    def sampling(self) -> render_pb2.Sampling:
        """How it is denoised."""
        return self.request.clip.sampling if self.is_clip else self.request.images.sampling

    @property
    def is_clip(self) -> bool:
        """Whether it makes a clip."""
        return self.request.HasField("clip")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        work = self.request.clip if self.is_clip else self.request.images
        return work.width_px, work.height_px


def make_recipes(*, cut: bool) -> list[Recipe]:
    """Return a recipe for each job type that renders (enhanced types render like the others), and one with frames.

    `cut` leaves each two denoising steps.
    """
    recipes = []
    for job_type in load_catalog().job_types.values():
        if job_type.enhanced:
            continue
        draft = JobDraft(job_type=job_type.name, metadata={"prompt": PROMPT, "seed": SEED})
        job = admit(draft, "benchmark", load_catalog())
        plan = RenderPlan.from_json(job.request)
        if cut:
            plan = replace(plan, step_count=CUT_STEPS)
        request = plan_to_request(plan, f"{job.id}/1", "benchmark", job.id, 1)
        recipes.append(Recipe(job_type.name, job_type.name, plan.kind, request))
    return [*recipes, _with_frames(next(recipe for recipe in recipes if recipe.is_clip))]


def _with_frames(recipe: Recipe) -> Recipe:
    """Return the recipe with a start and an end frame."""
    request = render_pb2.RenderRequest()
    request.CopyFrom(recipe.request)
    request.clip.conditioning_scale = 0.6
    noise = np.random.default_rng(SEED)
    pictures = {}
    for name in ("start_frame", "end_frame"):
        # The engine gets the pictures; that the request names some is what tells it to use them.
        getattr(request.clip, name).inline = b"given"
        pictures[name] = noise.integers(0, 256, (*recipe.size[::-1], 3), np.uint8)
    return Recipe(f"{recipe.name}, start and end frame", recipe.job_type, recipe.kind, request, pictures)
