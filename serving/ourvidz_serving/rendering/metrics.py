"""What a renderer counts and measures."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.engines.process import EngineState
from ourvidz_serving.errors import ServiceError

STAGES = ("load", "text_encode", "reference_encode", "denoise", "decode", "encode", "upload")
"""The stages that a render's time is told apart by, in the order in which they run."""

_STAGE_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 900.0)


class RenderMetrics:
    """The metrics of one renderer, in a registry of its server's. Every label has a fixed, small set of values."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._renders = Counter(
            "ourvidz_renders", "Renders that ended, by how they ended.", ["outcome"], registry=registry
        )
        self._stages = Histogram(
            "ourvidz_render_stage_seconds",
            "Time that finished renders spent in each stage, summed over their outputs.",
            ["stage"],
            buckets=_STAGE_BUCKETS_S,
            registry=registry,
        )
        self._outputs = Counter(
            "ourvidz_render_outputs", "Outputs of finished renders: pictures and clips.", ["kind"], registry=registry
        )
        self._frames = Counter("ourvidz_render_frames", "Frames of the clips of finished renders.", registry=registry)
        self._busy = Gauge("ourvidz_render_busy_slots", "Slots whose engine renders now.", registry=registry)
        self._model = Gauge(
            "ourvidz_render_model_state", "1 for the state that the model is in.", ["state"], registry=registry
        )
        self._retries = Counter("ourvidz_render_upload_retries", "Uploads that were tried again.", registry=registry)
        self._peak_memory = Gauge(
            "ourvidz_render_peak_memory_bytes", "The most memory that the last finished render used.", registry=registry
        )

    def busy(self, slots: int) -> None:
        """Tell how many slots are busy."""
        self._busy.set(slots)

    def model(self, state: EngineState) -> None:
        """Tell where the model stands."""
        for each in EngineState:
            self._model.labels(each.value).set(each is state)

    def upload_retried(self) -> None:
        """Count an upload that is tried again."""
        self._retries.inc()

    def finished(self, finished: render_pb2.Finished) -> None:
        """Count a render that finished, with its outputs and the time it spent in each stage."""
        self._renders.labels("finished").inc()
        for output in finished.outputs:
            is_clip = output.HasField("duration")
            self._outputs.labels("clip" if is_clip else "image").inc()
            self._frames.inc(output.frame_count if is_clip else 0)
        for timing in finished.timings:
            if timing.stage in STAGES:
                self._stages.labels(timing.stage).observe(timing.duration.ToNanoseconds() / 1e9)
        self._peak_memory.set(finished.peak_memory_bytes)

    def failed(self, error: ServiceError) -> None:
        """Count a render that did not finish, by its reason."""
        self._renders.labels(error.reason.lower()).inc()
