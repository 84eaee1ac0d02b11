"""The miniature SDXL family and its engine for tests: built once, and rendering without any process around it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from ourvidz.api.render.v1 import render_pb2
from ourvidz_miniature.sdxl import ensure_miniature_sdxl
from ourvidz_sdxl.engine import SdxlEngine
from ourvidz_serving.engines.engine import LoadSession
from ourvidz_serving.rendering.engine import FrameMade, Pixels, RenderSession, RenderTask

Message = TypeVar("Message", bound=object)

SIDE = 256
"""A server takes only what its engine offers, 1024; the engine itself draws smaller ones as well, and much sooner."""


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the miniature."""
    cache = tmp_path_factory.mktemp("models")
    ensure_miniature_sdxl(cache)
    return cache


@pytest.fixture(scope="session")
def miniature(model_cache: Path) -> Path:
    """The miniature's folder. Not to be changed."""
    return ensure_miniature_sdxl(model_cache)


@pytest.fixture(scope="session")
def engine(model_cache: Path) -> SdxlEngine:
    """A loaded engine that all tests share: how one render goes must not depend on those before it."""
    return load_engine(model_cache)


def engine_config(cache: Path, **changes: Any) -> dict[str, Any]:
    config = {"model": "miniature", "model_cache": str(cache), "single_file_config": None, "ip_adapter": None}
    # One thread: several wait for each other as soon as something else runs on the machine.
    return {**config, "device": "cpu", "dtype": "auto", "threads": 1, **changes}


def load_engine(cache: Path, **changes: Any) -> SdxlEngine:
    engine = SdxlEngine(engine_config(cache, **changes))
    engine.load(LoadSession(lambda _: None))
    return engine


def ask(
    prompt: str = "a red fox in snow",
    *,
    negative: str = "",
    images: int = 1,
    steps: int = 2,
    guidance: float = 5.0,
    sampler: render_pb2.Sampler.ValueType = render_pb2.SAMPLER_UNSPECIFIED,
    side: int = SIDE,
) -> render_pb2.RenderRequest:
    sampling = render_pb2.Sampling(
        prompt=prompt, negative_prompt=negative, step_count=steps, guidance_scale=guidance, sampler=sampler
    )
    batch = render_pb2.ImageBatch(sampling=sampling, width_px=side, height_px=side, image_count=images)
    return render_pb2.RenderRequest(render_id="job/1", images=batch)


class Told:
    """What an engine says during one render; `cancel_when` picks the message after which it is told to stop."""

    def __init__(self, *, previews: bool = False, cancel_when: Callable[[object], bool] = lambda _: False) -> None:
        self.messages: list[object] = []
        self._cancel_when = cancel_when
        self._cancel = threading.Event()
        self.session = RenderSession(self._take, self._cancel, wants_previews=previews)

    def cancel(self) -> None:
        self._cancel.set()

    def of(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.messages if isinstance(message, kind)]

    def _take(self, message: object) -> None:
        self.messages.append(message)
        if self._cancel_when(message):
            self._cancel.set()


def following(
    request: render_pb2.RenderRequest,
    influence: float,
    kind: render_pb2.ReferenceType.ValueType = render_pb2.REFERENCE_TYPE_STYLE,
) -> render_pb2.RenderRequest:
    """Return the request, following a reference that the engine is given with its task."""
    request.images.reference.type, request.images.reference.influence = kind, influence
    request.images.reference.source.inline = b"what a server has read, and an engine does not"
    return request


def task(request: render_pb2.RenderRequest, seed: int = 7, reference: Pixels | None = None) -> RenderTask:
    pictures = {} if reference is None else {"reference": reference}
    return RenderTask(request.SerializeToString(), seed, pictures)


def render(
    engine: SdxlEngine, request: render_pb2.RenderRequest, seed: int = 7, reference: Pixels | None = None
) -> list[Pixels]:
    """Return the pictures of a render, which must come in order."""
    told = Told()
    engine.run(task(request, seed, reference), told.session)
    frames = told.of(FrameMade)
    assert [frame.output_index for frame in frames] == list(range(request.images.image_count))
    return [frame.pixels for frame in frames]


def difference(one: Pixels, other: Pixels) -> float:
    """How far two pictures are from each other: the mean over all their values, of 255."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())
