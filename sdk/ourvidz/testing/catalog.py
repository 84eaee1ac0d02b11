"""The job types of a service as it is shipped, as far as its callers can tell them apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobType:
    """One of them."""

    name: str
    queue: str
    model_variant: str
    bucket: str
    width_px: int
    height_px: int
    image_counts: tuple[int, ...] = (1,)
    """How many outputs may be asked for; the first is the default."""
    enhanced: bool = False
    """Whether the prompt is rewritten first."""
    duration_s: float | None = None
    """How long a clip plays; None for still images."""
    takes_reference: bool = False
    takes_frames: bool = False
    price: int = 1

    @property
    def amount(self) -> str:
        """What it makes, in words."""
        if self.duration_s is not None:
            return "1 clip"
        if len(self.image_counts) == 1:
            return "1 image"
        return f"{', '.join(str(count) for count in self.image_counts[:-1])} or {self.image_counts[-1]} images"


def _sdxl(name: str) -> JobType:
    return JobType(
        name,
        queue="sdxl_queue",
        model_variant="sdxl",
        bucket=name.replace("_", "-"),
        width_px=1024,
        height_px=1024,
        image_counts=(1, 3, 6),
        takes_reference=True,
    )


def _wan(name: str) -> JobType:
    clip, enhanced = name.startswith("video"), name.endswith("_enhanced")
    return JobType(
        name,
        queue="wan_queue",
        model_variant="wan_2_1_1_3b_qwen_7b" if enhanced else "wan_2_1_1_3b",
        bucket=name.replace("_", "-"),
        width_px=480,
        height_px=832,
        enhanced=enhanced,
        duration_s=5.0 if clip else None,
        takes_frames=clip,
    )


JOB_TYPES = {
    job_type.name: job_type
    for job_type in (
        _sdxl("sdxl_image_fast"),
        _sdxl("sdxl_image_high"),
        _wan("image_fast"),
        _wan("image_high"),
        _wan("video_fast"),
        _wan("video_high"),
        _wan("image7b_fast_enhanced"),
        _wan("image7b_high_enhanced"),
        _wan("video7b_fast_enhanced"),
        _wan("video7b_high_enhanced"),
    )
}
