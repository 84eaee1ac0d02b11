"""Looking at jobs in quarantine, and letting them be tried again."""

from __future__ import annotations

from typing import Any

import typer

from ourvidz.admin_client import AdminClient
from ourvidz.cli.lists import iso, one_line, show_json, show_list, when
from ourvidz.quarantine import QuarantinedJob

COLUMNS = ("id", "type", "user", "tries", "since", "released as", "renderers", "error")


def list_quarantined(limit: int, *, user_id: str | None, include_released: bool, as_json: bool) -> None:
    """Print the jobs that came into quarantine last."""
    with AdminClient.from_environment() as admin:
        jobs = admin.list_quarantined(page_size=limit, user_id=user_id, include_released=include_released)
    if as_json:
        show_json([_json(job) for job in jobs])
    else:
        show_list(COLUMNS, [_row(job) for job in jobs])


def release(job_id: str) -> None:
    """Release a job and print the id of the new one."""
    with AdminClient.from_environment() as admin:
        typer.echo(admin.release_quarantined(job_id))


def _row(job: QuarantinedJob) -> tuple[str, ...]:
    return (
        job.job_id,
        job.job_type,
        job.user_id,
        str(job.attempt_count),
        when(job.quarantined_at) or "",
        job.released_job_id or "",
        " ".join(job.renderers),
        one_line(job.error_message),
    )


def _json(job: QuarantinedJob) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "user_id": job.user_id,
        "job_type": job.job_type,
        "attempt_count": job.attempt_count,
        "error_message": job.error_message,
        "renderers": list(job.renderers),
        "quarantined_at": iso(job.quarantined_at),
        "released_job_id": job.released_job_id,
    }
