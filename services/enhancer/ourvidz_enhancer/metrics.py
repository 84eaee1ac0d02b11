"""What an enhancer counts and measures."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ourvidz_serving.engines.process import EngineState

_BUCKETS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class EnhancerMetrics:
    """The metrics of one enhancer, in a registry of its server's. Every label has a fixed, small set of values."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._outcomes = Counter(
            "ourvidz_enhancements", "Enhancements that ended, by how they ended.", ["outcome"], registry=registry
        )
        self._seconds = Histogram(
            "ourvidz_enhance_seconds",
            "Time that finished enhancements took.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._tokens = Counter(
            "ourvidz_enhance_tokens", "Tokens of finished texts, as the renderer counts them.", registry=registry
        )
        self._busy = Gauge("ourvidz_enhance_busy_slots", "Slots whose engine writes now.", registry=registry)
        self._model = Gauge(
            "ourvidz_enhance_model_state", "1 for the state that the model is in.", ["state"], registry=registry
        )

    def busy(self, slots: int) -> None:
        """Tell how many slots are busy."""
        self._busy.set(slots)

    def model(self, state: EngineState) -> None:
        """Tell where the model stands."""
        for each in EngineState:
            self._model.labels(each.value).set(each is state)

    def finished(self, seconds: float, token_count: int) -> None:
        """Count an enhancement that finished."""
        self._outcomes.labels("finished").inc()
        self._seconds.observe(seconds)
        self._tokens.inc(token_count)

    def ended(self, outcome: str) -> None:
        """Count an enhancement that did not finish: by the reason of its error, or as `cancelled`."""
        self._outcomes.labels(outcome).inc()
