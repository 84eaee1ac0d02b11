"""A job from the prompt to the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from ourvidz.assets import Asset
from ourvidz.cli.files import upload
from ourvidz.cli.progress import progress_view
from ourvidz.client import Client
from ourvidz.errors import DownloadFailed
from ourvidz.jobs import Job, JobState
from ourvidz.references import ReferenceType

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended."""

SUFFIXES = {"image/png": ".png", "video/mp4": ".mp4"}


@dataclass(frozen=True, slots=True)
class References:
    """The pictures that a job follows, as files or URLs, and how closely."""

    image: str = ""
    type: ReferenceType | None = None
    start_frame: str = ""
    end_frame: str = ""
    strength: float | None = None


def generate(
    prompt: str,
    *,
    job_type: str,
    image_count: int | None,
    seed: int | None,
    negative_prompt: str,
    references: References,
    folder: Path,
) -> None:
    """Ask for a job, follow it to its end, save its files, print seed and paths."""
    with Client.from_environment() as client:
        job = client.create_job(
            job_type,
            prompt,
            image_count=image_count,
            seed=seed,
            negative_prompt=negative_prompt,
            reference_image_url=_url_of(references.image, client),
            reference_type=references.type,
            start_reference_image_url=_url_of(references.start_frame, client),
            end_reference_image_url=_url_of(references.end_frame, client),
            reference_strength=references.strength,
        )
        _finish(_follow(client, job, folder), client, folder)


def _url_of(reference: str, client: Client) -> str:
    """Return the URL of a picture; a file is uploaded first."""
    if not reference or "://" in reference:
        return reference
    return upload(client, Path(reference)).url


def watch(job_id: str, *, folder: Path | None) -> None:
    """Follow a job to its end; save its files where a folder is given."""
    with Client.from_environment() as client:
        # Asked first, so that a wrong id or address fails at once: `watch` itself is patient.
        job = client.get_job(job_id)
        _finish(_follow(client, job, folder), client, folder)


def _follow(client: Client, job: Job, folder: Path | None) -> Job:
    """Show the job's progress until it has ended, and return it as it is then."""
    console = Console(stderr=True)
    console.print(f"Job {job.id}", markup=False, highlight=False, soft_wrap=True)
    try:
        with progress_view(console) as view:
            for event in client.watch(job.id):
                view.show(event)
        return client.get_job(job.id)
    except KeyboardInterrupt:
        again = f"ourvidz jobs watch {job.id}" + (f" --out {folder}" if folder is not None else "")
        typer.echo(f"The job goes on without you. Watch it again with: {again}", err=True)
        typer.echo(f"Stop it with: ourvidz jobs cancel {job.id}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _finish(job: Job, client: Client, folder: Path | None) -> None:
    for warning in job.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    if enhanced_prompt := job.metadata.get("enhanced_prompt"):
        typer.echo(f"prompt {enhanced_prompt}")
    if job.seed is not None:
        typer.echo(f"seed {job.seed}")
    if folder is not None:
        for index, asset in enumerate(job.assets):
            typer.echo(_save(client, job, index, asset, folder))
    if job.state is not JobState.COMPLETED:
        typer.echo(f"Error: the job {job.state}: {job.error_message or 'no reason was given'}", err=True)
        raise typer.Exit(1)


def _save(client: Client, job: Job, index: int, asset: Asset, folder: Path) -> Path:
    """Save one file under a name that is the same each time, and never over another file."""
    path = folder / f"{job.id[:8]}-{index}{SUFFIXES.get(asset.mime_type, '')}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        client.download(asset, path)
    except FileExistsError as error:
        # Eight characters of the id and the same size: the file was saved before.
        if not path.is_file() or path.stat().st_size != asset.size_bytes:
            raise DownloadFailed(f"{path} is there already, and is something else; choose another --out") from error
    except OSError as error:
        raise DownloadFailed(f"{path} can't be written: {error.strerror}") from error
    return path
