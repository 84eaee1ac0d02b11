"""Runs benchmarks and writes what they find into `benchmarks/README.md`."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Protocol

import typer
import uvloop
from rich.console import Console

from ourvidz_bench import page
from ourvidz_bench.results import Result, Row, spread

BENCHMARKS = {
    "rest": "requests a second at POST /api/queue-job",
    "progress": "progress messages to watchers",
    "encoding": "PNG and MP4",
    "rendering": "CPU time of a render beside plain diffusers",
    "idle": "the whole stack with nothing to do",
}


class Benchmark(Protocol):
    """A module of this package that measures something."""

    TITLE: str
    """The heading on the page."""
    TEXT: str
    """How it is measured, a few sentences for the page."""
    PACKAGES: tuple[str, ...]
    """Distributions whose versions matter, besides Python's own."""

    async def measure(self, rounds: int, console: Console) -> list[Row]:
        """Measure ours and theirs in turn, that many times; tell what is being done."""
        ...


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Which ones; all if none is named.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each is measured.", min=1)] = 5,
    keep: Annotated[bool, typer.Option(help="Keep what is found, and write it into benchmarks/README.md.")] = False,
) -> None:
    """Run benchmarks, ours and what they are compared with in turn."""
    console = Console()
    for name in names or BENCHMARKS:
        if name not in BENCHMARKS:
            raise typer.BadParameter(f"{name} is none of {', '.join(BENCHMARKS)}", param_hint="names")
        benchmark: Benchmark = import_module(f"ourvidz_bench.{name}")
        console.rule(BENCHMARKS[name])
        rows = uvloop.run(benchmark.measure(rounds, console))
        for row in rows:
            ratio = f", ratio {spread(row.ratios)}, goal {row.goal or 'none'}, met {row.met}" if row.theirs else ""
            console.print(
                f"{row.what}: {spread(row.ours)} {row.unit}; {row.beside} {spread(row.theirs) if row.theirs else ''}{ratio}"
            )
        if keep:
            Result(
                name,
                benchmark.TITLE,
                f"{datetime.now(UTC):%Y-%m-%d}",
                f"make bench BENCH={name} ROUNDS={rounds}",
                _machine(benchmark.PACKAGES),
                benchmark.TEXT,
                rows,
            ).save()
    if keep:
        page.write()


def _machine(packages: tuple[str, ...]) -> str:
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}" + (
        versions and f", {versions}"
    )


if __name__ == "__main__":
    typer.run(main)
