"""Writes the tables of all kept results into `benchmarks/README.md`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ourvidz_bench.results import FOLDER, Result, Row, spread

PAGE = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- written by make bench -->"
END = "<!-- to here -->"

_MET = {True: "yes", False: "**no**", None: ""}


def write() -> None:
    """Put what is kept in place of what stands between the marks."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    results = [Result.read(path) for path in sorted(FOLDER.glob("*.json"))]
    tables = "\n".join(line for result in results for line in _section(result))
    PAGE.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")


def _section(result: Result) -> Iterator[str]:
    yield f"\n### {result.title}\n"
    yield f"{result.text}\n"
    yield f"`{result.command}`, {result.taken}, {result.machine}.\n"
    yield "| what | ours | beside | theirs | ours/theirs | goal | met |"
    yield "|---|---|---|---|---|---|---|"
    yield from (_line(row) for row in result.rows)
    for row in result.rows:
        if row.note:
            yield f"\n{row.what}: {row.note}"


def _line(row: Row) -> str:
    ours = f"{spread(row.ours)} {row.unit}"
    theirs = f"{spread(row.theirs)} {row.unit}" if row.theirs else ""
    ratio = spread(row.ratios) if row.ratios else ""
    return f"| {row.what} | {ours} | {row.beside} | {theirs} | {ratio} | {row.goal} | {_MET[row.met]} |"
