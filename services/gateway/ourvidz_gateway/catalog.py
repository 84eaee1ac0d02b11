"""The job types that users can ask for: data, read once at start, that says how each is rendered and what it costs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from ourvidz_gateway.errors import UnknownJobType
from ourvidz_gateway.jobs import Kind

Count = Annotated[int, Field(strict=True, ge=1)]
Pixels = Annotated[int, Field(strict=True, ge=8, le=8192)]
BucketName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$")]
JobTypeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]


class CatalogError(ValueError):
    """A catalog file can't be used; the message names the file, the place in it and what is wrong."""


class Sampler(StrEnum):
    """The solver that walks from noise to a picture."""

    DPMPP_2M_KARRAS = "dpmpp_2m_karras"
    EULER = "euler"
    UNIPC = "unipc"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How outputs of a job type are rendered."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    width_px: Pixels
    height_px: Pixels
    step_count: Annotated[int, Field(strict=True, ge=1, le=200)]
    guidance_scale: Annotated[float, Field(ge=0, le=30)]
    sampler: Sampler
    flow_shift: Annotated[float, Field(ge=0.1, le=20)] | None = None
    """UniPC's flow shift; None for samplers that have none."""
    frame_count: Annotated[int, Field(strict=True, ge=1, le=161)] | None = None
    """Frames of a clip; None for a still image."""
    duration_s: Annotated[float, Field(gt=0, le=60)] | None = None
    """Seconds that a clip plays; None for a still image."""

    def __post_init__(self) -> None:
        if (self.frame_count is None) != (self.duration_s is None):
            raise ValueError("a clip needs both frame_count and duration_s, a still image neither")


@dataclass(frozen=True, slots=True)
class JobType:
    """One row of the catalog."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: JobTypeName
    kind: Kind
    """The renderer that makes it: SDXL or WAN."""
    enhanced: Annotated[bool, Field(strict=True)]
    """Whether the enhancer rewrites the prompt first."""
    model_variant: Annotated[str, Field(min_length=1, max_length=100)]
    bucket: BucketName
    max_bytes: Count
    """What one output may weigh at most."""
    price: Annotated[int, Field(strict=True, ge=0)]
    """Credits that a job costs."""
    deadline_s: Count
    """Seconds of rendering, over all attempts, after which a job is stopped."""
    image_counts: Annotated[tuple[Annotated[int, Field(strict=True, ge=1, le=6)], ...], Field(min_length=1)]
    """How many outputs may be asked for; the first is the default."""
    supports_reference: Annotated[bool, Field(strict=True)]
    """Whether its images can follow a reference picture."""
    supports_frames: Annotated[bool, Field(strict=True)]
    """Whether its clip can be given the pictures that it starts and ends with."""
    recipe: Recipe

    def __post_init__(self) -> None:
        if self.kind not in (Kind.SDXL, Kind.WAN):
            raise ValueError("kind must be 'sdxl' or 'wan': only renderers make outputs")
        if self.supports_frames and not self.is_clip:
            raise ValueError("supports_frames needs a recipe with frame_count and duration_s")
        if self.supports_reference and self.is_clip:
            raise ValueError("supports_reference is for still images; a clip has supports_frames")
        if self.is_clip and self.image_counts != (1,):
            raise ValueError("image_counts must be [1] for a clip")

    @property
    def is_clip(self) -> bool:
        """Whether it makes a clip rather than still images."""
        return self.recipe.frame_count is not None

    @property
    def supports_counts(self) -> bool:
        """Whether a user can choose how many outputs there are."""
        return len(self.image_counts) > 1


@dataclass(frozen=True, slots=True)
class Catalog:
    """All job types by name."""

    job_types: Mapping[str, JobType]

    def get(self, name: str, *, field: str = "jobType") -> JobType:
        """Return the job type that `field` names. Raises `UnknownJobType`, which lists the valid names."""
        try:
            return self.job_types[name]
        except KeyError:
            raise UnknownJobType(name, valid=list(self.job_types), field=field) from None

    @classmethod
    def parse(cls, text: str, *, source: str) -> Self:
        """Read a catalog from TOML; `source` names it in errors. Raises `CatalogError`."""
        try:
            document = _DOCUMENT.validate_python(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise CatalogError(f"The catalog {source} is not valid TOML: {error}.") from error
        except ValidationError as error:
            faults = "; ".join(_fault(line["loc"], line["msg"]) for line in error.errors())
            raise CatalogError(f"The catalog {source} can't be used: {faults}.") from error
        return cls(document.job_types)


def _named(rows: Any) -> Any:
    """Give each row its table's name, so that a file can't state two names for one row."""
    if not isinstance(rows, dict):
        return rows
    return {name: {**row, "name": name} if isinstance(row, dict) else row for name, row in rows.items()}


@dataclass(frozen=True, slots=True)
class _Document:
    __pydantic_config__ = ConfigDict(extra="forbid")

    job_types: Annotated[dict[str, JobType], BeforeValidator(_named), Field(min_length=1)]


_DOCUMENT = TypeAdapter(_Document)


def _fault(place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in place) or "the file"
    return f"{where}: {message.removeprefix('Value error, ')}"


def load_catalog(path: Path | None = None) -> Catalog:
    """Read an operator's catalog, or the one that is shipped when `path` is None. Raises `CatalogError`."""
    if path is None:
        shipped = files("ourvidz_gateway") / "catalog.toml"
        return Catalog.parse(shipped.read_text(encoding="utf-8"), source="catalog.toml")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"The catalog {path} can't be read: {error}.") from error
    return Catalog.parse(text, source=str(path))
