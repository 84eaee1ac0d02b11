"""`ourvidz assets …` and `ourvidz references …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ourvidz.cli.commands.options import AsJson, JobType, Limit, Project

assets_app = typer.Typer(no_args_is_help=True, help="Look at the files that your jobs made, and delete them.")
references_app = typer.Typer(no_args_is_help=True, help="Look after the pictures that your jobs can follow.")

AssetIds = Annotated[list[str], typer.Argument(help="Ids of assets.", show_default=False)]
ReferenceIds = Annotated[list[str], typer.Argument(help="Ids of reference images.", show_default=False)]
Pictures = Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files.", show_default=False)]


@assets_app.command("list")
def list_assets(limit: Limit = 20, job_type: JobType = None, project: Project = None, as_json: AsJson = False) -> None:
    """List the files that your jobs made, newest first."""
    from ourvidz.cli.files import list_assets as run

    run(limit, job_type=job_type, project_id=project, as_json=as_json)


@assets_app.command("delete")
def delete_assets(asset_ids: AssetIds) -> None:
    """Delete files that your jobs made; the jobs stay."""
    from ourvidz.cli.files import delete_assets as run

    run(asset_ids)


@references_app.command("list")
def list_references(limit: Limit = 20, as_json: AsJson = False) -> None:
    """List the pictures that you uploaded, newest first."""
    from ourvidz.cli.files import list_references as run

    run(limit, as_json=as_json)


@references_app.command("upload")
def upload_references(pictures: Pictures) -> None:
    """Upload pictures for jobs to follow, and print the URL of each."""
    from ourvidz.cli.files import upload_references as run

    run(pictures)


@references_app.command("delete")
def delete_references(reference_ids: ReferenceIds) -> None:
    """Delete pictures that you uploaded."""
    from ourvidz.cli.files import delete_references as run

    run(reference_ids)
