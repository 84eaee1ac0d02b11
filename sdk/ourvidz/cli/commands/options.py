"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where the local stack keeps everything. Default: ourvidz in XDG_DATA_HOME or ~/.local/share.",
        envvar="OURVIDZ_DATA_DIR",
        show_envvar=True,
    ),
]
JobId = Annotated[str, typer.Argument(help="The job's id.", show_default=False)]
Limit = Annotated[int, typer.Option(help="How many at most, newest first.", min=1, max=100)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with the keys that REST uses where it has them.")]
JobType = Annotated[str | None, typer.Option("--type", help="Only those of this job type.", show_default=False)]
Project = Annotated[str | None, typer.Option(help="Only those of this project.", show_default=False)]
User = Annotated[str | None, typer.Option(help="Only those of this user.", show_default=False)]
