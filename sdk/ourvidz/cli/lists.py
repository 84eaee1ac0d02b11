"""Lists on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table


def show_list(columns: Sequence[str], rows: Sequence[Sequence[str]], *, whole: int = 1) -> None:
    """Print a table for people, its first `whole` columns never cut, or tab-separated lines for pipes."""
    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(*columns, box=None, pad_edge=False)
    for index, column in enumerate(table.columns):
        column.no_wrap = True
        column.overflow = "ellipsis"
        if index < whole:
            column.min_width = max((len(row[index]) for row in rows), default=0)
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False, highlight=False)


def show_json(value: Any) -> None:
    """Print a JSON value for programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def one_line(text: str | None) -> str:
    """Return a text as a cell of a list can show it."""
    return " ".join((text or "").split())


def iso(moment: datetime | None) -> str | None:
    """Return a time as programs read it."""
    return moment.isoformat() if moment is not None else None


def when(moment: datetime | None) -> str | None:
    """Return a time as a person here reads it: local, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment is not None else None
