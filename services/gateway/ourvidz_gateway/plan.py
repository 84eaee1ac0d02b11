"""What a job renders, settled when it was accepted, and how that is put to a renderer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from ourvidz.api.render.v1 import render_pb2
from ourvidz_gateway.catalog import Sampler
from ourvidz_gateway.jobs import JobStage, Kind

KEEP = timedelta(seconds=60)
"""How long a renderer goes on for a gateway that is gone, so that its successor can attach."""

_SAMPLERS = {
    Sampler.DPMPP_2M_KARRAS: render_pb2.SAMPLER_DPMPP_2M_KARRAS,
    Sampler.EULER: render_pb2.SAMPLER_EULER,
    Sampler.UNIPC: render_pb2.SAMPLER_UNIPC,
}


class ReferenceRole(StrEnum):
    """What a reference picture is for."""

    IMAGE = "image"
    """Still images follow it."""
    START_FRAME = "start_frame"
    """A clip starts with it."""
    END_FRAME = "end_frame"
    """A clip ends with it."""


class ReferenceType(StrEnum):
    """In what still images follow their reference picture."""

    STYLE = "style"
    COMPOSITION = "composition"
    CHARACTER = "character"


_REFERENCE_TYPES = {
    ReferenceType.STYLE: render_pb2.REFERENCE_TYPE_STYLE,
    ReferenceType.COMPOSITION: render_pb2.REFERENCE_TYPE_COMPOSITION,
    ReferenceType.CHARACTER: render_pb2.REFERENCE_TYPE_CHARACTER,
}


@dataclass(frozen=True, slots=True)
class StoredReference:
    """A reference picture that was checked, as it lies in object storage."""

    bucket: str
    key: str
    sha256: str
    """Of the object's bytes, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file of the user's own that a URL names: an upload, or an output of a job."""

    id: str
    mime_type: str
    size_bytes: int
    stored: StoredReference


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference picture of a job: where it comes from and, once that is known, where it lies."""

    role: ReferenceRole
    url: str
    """The URL as the user gave it."""
    own_id: str | None = None
    """The id of the user's own upload, or output, that the URL names; None where the URL must be downloaded."""
    stored: StoredReference | None = None
    """None until it was downloaded, and for good if that failed: then the job is rendered without it."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote."""
        stored = values["stored"]
        return cls(
            **{
                **values,
                "role": ReferenceRole(values["role"]),
                "stored": None if stored is None else StoredReference(**stored),
            }
        )


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """All that rendering a job needs, so that neither a retry nor a changed catalog alters what comes out."""

    kind: Kind
    """The renderer that makes it: SDXL or WAN."""
    enhanced: bool
    """Whether the enhancer rewrites `prompt` before it is rendered."""
    model_variant: str
    prompt: str
    negative_prompt: str
    """What is not to be seen; empty for none."""
    seed: int
    """0 to 2³² − 1; image i uses (seed + i) mod 2³²."""
    image_count: int
    width_px: int
    height_px: int
    frame_count: int | None
    """Frames of a clip; None for still images."""
    duration_s: float | None
    """Seconds that a clip plays; None for still images."""
    step_count: int
    guidance_scale: float
    sampler: Sampler
    flow_shift: float | None
    bucket: str
    max_bytes: int
    """What one output may weigh at most."""
    deadline_s: int
    """Seconds of rendering, over all attempts, after which the job is stopped."""
    references: tuple[Reference, ...] = ()
    """The pictures that it follows, at most one of each role."""
    reference_type: ReferenceType = ReferenceType.STYLE
    """In what still images follow their picture."""
    reference_strength: float = 0.5
    """How closely, 0.0 to 1.0; 1.0 is closest to the picture."""
    enhanced_prompt: str = ""
    """What the enhancer made of `prompt`; empty before, and for jobs that are not enhanced."""

    @property
    def stages(self) -> list[JobStage]:
        """What has to be done, in order."""
        return [
            *([JobStage.FETCHING] if any(reference.own_id is None for reference in self.references) else []),
            *([JobStage.ENHANCING] if self.enhanced else []),
            JobStage.RENDERING,
        ]

    def kind_of(self, stage: JobStage) -> Kind:
        """Return the resource that a stage waits for."""
        match stage:
            case JobStage.FETCHING:
                return Kind.FETCHER
            case JobStage.ENHANCING:
                return Kind.ENHANCER
            case _:
                return self.kind

    @property
    def cost(self) -> float:
        """The work that it brings a renderer, in denoising steps of one frame: what fair shares are measured in."""
        return float(self.step_count * self.image_count * (self.frame_count or 1))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` wrote. Plans of jobs from before a field was there have its default."""
        return cls(
            **{
                **values,
                "kind": Kind(values["kind"]),
                "sampler": Sampler(values["sampler"]),
                "references": tuple(Reference.from_json(each) for each in values.get("references", ())),
                "reference_type": ReferenceType(values.get("reference_type", ReferenceType.STYLE)),
            }
        )


def plan_to_request(
    plan: RenderPlan, render_id: str, user_id: str, job_id: UUID, attempt: int
) -> render_pb2.RenderRequest:
    """Put a plan to a renderer as one attempt, whose outputs go under `<user>/<job>/<attempt>`.

    References that are not stored are left out.
    """
    sources = {reference.role: _source(reference.stored) for reference in plan.references if reference.stored}
    request = render_pb2.RenderRequest(
        render_id=render_id,
        output=render_pb2.OutputLocation(
            bucket=plan.bucket,
            prefix=f"{user_folder(user_id)}/{job_id}/{attempt}",
            max_bytes=plan.max_bytes,
        ),
        on_disconnect=render_pb2.ON_DISCONNECT_KEEP,
        keep=_duration(KEEP),
        # Whether anybody watches or not: they cost the renderer 1 or 2 per cent of its time.
        previews=True,
    )
    sampling = render_pb2.Sampling(
        prompt=plan.enhanced_prompt or plan.prompt,
        negative_prompt=plan.negative_prompt,
        step_count=plan.step_count,
        guidance_scale=plan.guidance_scale,
        seed=plan.seed,
        sampler=_SAMPLERS[plan.sampler],
        flow_shift=plan.flow_shift,
    )
    if plan.frame_count is None or plan.duration_s is None:
        request.images.CopyFrom(
            render_pb2.ImageBatch(
                sampling=sampling,
                width_px=plan.width_px,
                height_px=plan.height_px,
                image_count=plan.image_count,
                reference=_image_reference(plan, sources.get(ReferenceRole.IMAGE)),
            )
        )
    else:
        request.clip.CopyFrom(
            render_pb2.Clip(
                sampling=sampling,
                width_px=plan.width_px,
                height_px=plan.height_px,
                frame_count=plan.frame_count,
                duration=_duration(timedelta(seconds=plan.duration_s)),
                start_frame=sources.get(ReferenceRole.START_FRAME),
                end_frame=sources.get(ReferenceRole.END_FRAME),
                conditioning_scale=plan.reference_strength if sources else None,
            )
        )
    return request


def _image_reference(plan: RenderPlan, source: render_pb2.ImageSource | None) -> render_pb2.ImageReference | None:
    if source is None:
        return None
    return render_pb2.ImageReference(
        source=source, type=_REFERENCE_TYPES[plan.reference_type], influence=plan.reference_strength
    )


def _source(stored: StoredReference) -> render_pb2.ImageSource:
    return render_pb2.ImageSource(
        stored=render_pb2.StoredImage(bucket=stored.bucket, key=stored.key, sha256=bytes.fromhex(stored.sha256))
    )


def user_folder(user_id: str) -> str:
    """Return the one key segment under which a user's objects lie.

    The ids that identity providers issue are mostly UUIDs and stand as they are. Any other id (`auth0|…`, an e-mail
    address) is hashed: percent signs and odd characters in keys are where S3 servers and signed URLs disagree. The two
    forms can't meet, since only the hashed one has a dot.
    """
    if re.fullmatch(r"[A-Za-z0-9_-]{1,100}", user_id):
        return user_id
    return f"sha256.{hashlib.sha256(user_id.encode()).hexdigest()}"


def _duration(span: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(span)
    return duration
