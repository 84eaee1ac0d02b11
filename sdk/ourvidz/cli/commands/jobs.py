"""`ourvidz jobs …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ourvidz.cli.commands.options import AsJson, JobId, JobType, Limit, Project, User
from ourvidz.jobs import JobState

app = typer.Typer(no_args_is_help=True, help="Look at your jobs, and cancel them; for operators: quarantine.")


@app.command("list")
def list_jobs(
    limit: Limit = 20,
    job_type: JobType = None,
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.", show_default=False)] = None,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """List your jobs, newest first."""
    from ourvidz.cli.jobs import list_jobs as run

    run(limit, job_type=job_type, state=state, project_id=project, as_json=as_json)


@app.command("show")
def show_job(job_id: JobId, as_json: AsJson = False) -> None:
    """Show one job: where it stands, and where its files are."""
    from ourvidz.cli.jobs import show_job as run

    run(job_id, as_json=as_json)


@app.command("cancel")
def cancel_job(job_id: JobId) -> None:
    """Cancel a job: at once while it waits, within a step while it runs. What is finished stays."""
    from ourvidz.cli.jobs import cancel_job as run

    run(job_id)


@app.command("watch")
def watch_job(
    job_id: JobId,
    out: Annotated[
        Path | None, typer.Option(help="Save the files in this folder when the job is done.", show_default=False)
    ] = None,
) -> None:
    """Show a job's progress until it has ended."""
    from ourvidz.cli.generate import watch as run

    run(job_id, folder=out)


@app.command("quarantined")
def list_quarantined(
    limit: Limit = 20,
    user: User = None,
    released: Annotated[bool, typer.Option("--released", help="Also those that were released.")] = False,
    as_json: AsJson = False,
) -> None:
    """List jobs that killed their renderer at each attempt. For operators."""
    from ourvidz.cli.quarantine import list_quarantined as run

    run(limit, user_id=user, include_released=released, as_json=as_json)


@app.command("release")
def release_job(job_id: JobId) -> None:
    """Let a quarantined job be tried again, and print the new job's id. For operators."""
    from ourvidz.cli.quarantine import release as run

    run(job_id)
