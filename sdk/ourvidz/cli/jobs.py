"""Looking at jobs: a list, or one with all that is known of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import typer

from ourvidz.cli.files import asset_json
from ourvidz.cli.lists import iso, one_line, show_json, show_list, when
from ourvidz.client import Client
from ourvidz.jobs import Job, JobState

COLUMNS = ("id", "type", "state", "progress", "created", "prompt")


def list_jobs(
    limit: int, *, job_type: str | None, state: JobState | None, project_id: str | None, as_json: bool
) -> None:
    """Print the newest jobs."""
    with Client.from_environment() as client:
        jobs = client.list_jobs(page_size=limit, job_type=job_type, state=state, project_id=project_id)
    if as_json:
        show_json([job_json(job) for job in jobs])
    else:
        show_list(COLUMNS, [_row(job) for job in jobs])


def cancel_job(job_id: str) -> None:
    """Cancel a job and follow it to its end, which may also be that it was done already."""
    with Client.from_environment() as client:
        job = client.cancel_job(job_id)
        for event in () if job.state.terminal else client.watch(job.id):
            job = replace(job, state=event.state)
    typer.echo(job.state)


def show_job(job_id: str, *, as_json: bool) -> None:
    """Print one job, a line for each thing that is known of it, or JSON."""
    with Client.from_environment() as client:
        job = client.get_job(job_id)
    if as_json:
        show_json(job_json(job))
        return
    facts: list[tuple[str, Any]] = [
        ("id", job.id),
        ("type", job.job_type),
        ("state", job.state if job.stage is None else f"{job.state} ({job.stage}, {job.progress} %)"),
        ("queue", None if job.queue_position is None else f"about {job.queue_position} before it"),
        ("prompt", job.metadata.get("prompt")),
        ("seed", job.seed),
        ("created", when(job.created_at)),
        ("started", when(job.started_at)),
        ("ended", when(job.completed_at)),
        ("error", job.error_message),
        *(("warning", warning) for warning in job.warnings),
        *((f"file {index}", asset.url) for index, asset in enumerate(job.assets)),
    ]
    for name, value in facts:
        if value is not None:
            typer.echo(f"{name:<8} {value}")


def job_json(job: Job) -> dict[str, Any]:
    """Return the job under the keys that `GET /api/jobs/{id}` uses."""
    return {
        "id": job.id,
        "user_id": job.user_id,
        "job_type": job.job_type,
        "status": job.state,
        "stage": job.stage,
        "progress": job.progress,
        "queue_position": job.queue_position,
        "created_at": iso(job.created_at),
        "started_at": iso(job.started_at),
        "completed_at": iso(job.completed_at),
        "metadata": job.metadata,
        "seed": job.seed,
        "assets": [asset_json(asset) for asset in job.assets],
        "error_message": job.error_message,
        "credits": job.credits,
        "warnings": list(job.warnings),
        "project_id": job.project_id,
        "video_id": job.video_id,
        "image_id": job.image_id,
        "retry_of": job.retry_of,
    }


def _row(job: Job) -> tuple[str, ...]:
    prompt = one_line(str(job.metadata.get("prompt", "")))
    return (job.id, job.job_type, job.state, f"{job.progress}%", when(job.created_at) or "", prompt)
