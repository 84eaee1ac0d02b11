"""Looking at jobs: a list, or one with all that is known of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from ourvidz.client import Client
from ourvidz.jobs import Asset, Job

COLUMNS = ("id", "type", "state", "progress", "created", "prompt")


def list_jobs(limit: int, *, as_json: bool) -> None:
    """Print the newest jobs: a table for people, tab-separated lines for pipes, or JSON."""
    with Client.from_environment() as client:
        jobs = client.list_jobs(page_size=limit).jobs
    if as_json:
        typer.echo(json.dumps([job_json(job) for job in jobs], indent=2, ensure_ascii=False))
        return
    console = Console()
    if not console.is_terminal:
        for job in jobs:
            typer.echo("\t".join(_row(job)))
        return
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
        column.overflow = "ellipsis"
    table.columns[0].min_width = 36
    for job in jobs:
        table.add_row(*_row(job))
    console.print(table, markup=False, highlight=False)


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
        typer.echo(json.dumps(job_json(job), indent=2, ensure_ascii=False))
        return
    facts: list[tuple[str, Any]] = [
        ("id", job.id),
        ("type", job.job_type),
        ("state", job.state if job.stage is None else f"{job.state} ({job.stage}, {job.progress} %)"),
        ("queue", None if job.queue_position is None else f"about {job.queue_position} before it"),
        ("prompt", job.metadata.get("prompt")),
        ("seed", job.seed),
        ("created", _when(job.created_at)),
        ("started", _when(job.started_at)),
        ("ended", _when(job.completed_at)),
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
        "created_at": _iso(job.created_at),
        "started_at": _iso(job.started_at),
        "completed_at": _iso(job.completed_at),
        "metadata": job.metadata,
        "seed": job.seed,
        "assets": [_asset_json(asset) for asset in job.assets],
        "error_message": job.error_message,
        "credits": job.credits,
        "warnings": list(job.warnings),
        "project_id": job.project_id,
        "video_id": job.video_id,
        "image_id": job.image_id,
        "retry_of": job.retry_of,
    }


def _asset_json(asset: Asset) -> dict[str, Any]:
    return {
        "id": asset.id,
        "url": asset.url,
        "mime_type": asset.mime_type,
        "size_bytes": asset.size_bytes,
        "width": asset.width_px,
        "height": asset.height_px,
        "seed": asset.seed,
        "duration_seconds": asset.duration_s,
    }


def _row(job: Job) -> tuple[str, ...]:
    prompt = " ".join(str(job.metadata.get("prompt", "")).split())
    return (job.id, job.job_type, job.state, f"{job.progress}%", _when(job.created_at) or "", prompt)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _when(moment: datetime | None) -> str | None:
    """A time as a person here reads it: local, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment is not None else None
