"""What a benchmark found: rows of figures that were taken in turn, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

FOLDER = Path(__file__).parents[1] / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured, round by round: ours, and in the same rounds what it is compared with."""

    what: str
    """For example `accepted → render called, one at a time, p50`."""
    unit: str
    """For example `ms` or `jobs/s`."""
    ours: list[float]
    """One figure a round."""
    beside: str = ""
    """What it is compared with, with its version; empty: nothing."""
    theirs: list[float] = field(default_factory=list)
    """One figure a round, in the same order as `ours`."""
    goal: str = ""
    """What the ratio ours/theirs, or our figure, is to be: `≤ 0.75` or `≥ 3`. Empty: it is only stated."""
    note: str = ""
    """What bounds it, where the goal is missed; from a profile."""

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, round by round."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)] if self.theirs else []

    @property
    def met(self) -> bool | None:
        """Whether the goal is met, by the median; None where there is none."""
        if not self.goal:
            return None
        sign, bound = self.goal.split(" ")[:2]
        found = median(self.ratios or self.ours)
        return found <= float(bound) if sign == "≤" else found >= float(bound)


@dataclass(frozen=True, slots=True)
class Result:
    """All rows of one benchmark, and how they were taken."""

    benchmark: str
    title: str
    taken: str
    """The date."""
    command: str
    machine: str
    """Cores and processor, and the versions that matter."""
    text: str
    """How it was measured, for the page."""
    rows: list[Row]

    def save(self) -> None:
        """Keep it, in place of what an earlier run found."""
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{self.benchmark}.json").write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what a run has kept."""
        kept = json.loads(path.read_text())
        return cls(**{**kept, "rows": [Row(**row) for row in kept["rows"]]})


def spread(figures: Sequence[float]) -> str:
    """Return the median and, behind it, the lowest and the highest of several figures."""
    if len(figures) == 1:
        return short(figures[0])
    return f"{short(median(figures))} ({short(min(figures))}–{short(max(figures))})"


def short(figure: float) -> str:
    """Return a figure with three digits that count."""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"
