"""Simulates loads, cells and bursts, and draws `docs/images/waiting.svg`: `python -m ourvidz_bench.simulation`."""

from __future__ import annotations

from pathlib import Path
from random import Random

import typer

from ourvidz_bench.simulation.cell import Job, JobType, Lanes, Line, pinned, poisson, quantile, waits
from ourvidz_bench.simulation.chart import draw
from ourvidz_bench.simulation.real import measure

PICTURE = Path(__file__).parents[3] / "docs" / "images" / "waiting.svg"

SDXL = (JobType(0.7, 5, 1), JobType(0.2, 15, 3), JobType(0.1, 30, 6))
"""One, three and six pictures of 5 s, the middle of the reference's 3 to 8 s."""
WAN = (JobType(0.7, 135, 1), JobType(0.3, 180, 2))
"""Fast and high clips."""
JOBS = 60_000
GPUS = 16
LOADS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)


def mixed(types: tuple[JobType, ...], gpus: int, load: float, seed: int = 1) -> list[Job]:
    """Return jobs of a mix that keep so many GPUs busy for that share of the time."""
    service_s = sum(each.share * each.service_s for each in types)
    return poisson(gpus * load / service_s, JOBS, types, Random(seed), users=2_000)  # noqa: S311


def waited(jobs: list[Job], gpus: int, cells: int = 1) -> list[float]:
    """Return how long jobs waited in one cell or in several that share the GPUs."""
    return [wait_s for kept in pinned(jobs, cells).values() for _, wait_s in waits(kept, gpus // cells, Lanes())]


def bursts(queue: Lanes | Line) -> list[float]:
    """Return the waits of all others when one user asks for 500 pictures at once, in the first 10 minutes of it."""
    jobs = [job for job in mixed(SDXL, GPUS, 0.8) if job.arrives_s < 4_200]
    burst = [Job(3_600, "burst", 5) for _ in range(500)]
    begun = waits(sorted([*jobs, *burst], key=lambda job: job.arrives_s), GPUS, queue)
    return [wait_s for job, wait_s in begun if job.user != "burst" and job.arrives_s >= 3_600]


def main(cluster_jobs: int = 0) -> None:
    """Print tables and draw the picture; with `--cluster-jobs N`, also run N jobs through a real cluster."""
    for name, types in (("sdxl", SDXL), ("wan", WAN)):
        print(f"\n{name}: wait p50 / p99 in s\nload  " + "".join(f"{gpus:>4} GPUs     " for gpus in (1, 4, 16, 64)))
        for load in LOADS:
            found = [waited(mixed(types, gpus, load), gpus) for gpus in (1, 4, 16, 64)]
            print(f"{load:.2f}  " + "".join(f"{quantile(w, 0.5):6.1f}/{quantile(w, 0.99):<6.1f}" for w in found))
    lines = {}
    for cells in (1, 4, 16):
        found = [waited(mixed(SDXL, 64, load), 64, cells) for load in LOADS]
        label = "1 cell of 64 GPUs" if cells == 1 else f"{cells} cells of {64 // cells} GPUs"
        lines[label] = [quantile(each, 0.99) for each in found]
        print(label, "p99:", *(f"{each:.1f}" for each in lines[label]))
    PICTURE.write_text(draw("Wait of SDXL jobs, p99, by load", LOADS, lines))
    for label, queue in (("lanes", Lanes()), ("one line", Line())):
        others = bursts(queue)
        print(
            f"a burst of 500, {label}: others wait {quantile(others, 0.5):.1f} s p50, {quantile(others, 0.99):.1f} s p99"
        )
    if cluster_jobs:
        print(measure(cluster_jobs))


if __name__ == "__main__":
    typer.run(main)
