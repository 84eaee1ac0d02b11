"""A job's progress in the terminal: a live bar for people, plain lines for logs and pipes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ourvidz.jobs import JobEvent, JobStage


class ProgressView(Protocol):
    """Shows events as they come."""

    def show(self, event: JobEvent) -> None:
        """Show one event."""
        ...


@contextmanager
def progress_view(console: Console) -> Iterator[ProgressView]:
    """Give the view that fits the console, and leave the terminal clean afterwards."""
    if not console.is_terminal:
        yield PlainLines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield LiveBar(progress)


class LiveBar:
    """One line that changes: stage, image, step, percent, time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("queued", total=100)
        self._narrator = Narrator()

    def show(self, event: JobEvent) -> None:
        """Show one event."""
        self._progress.update(self._task, description=self._narrator.describe(event), completed=event.progress)


class PlainLines:
    """A line whenever a stage, an image or another try begins, and none per step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._narrator = Narrator()
        self._shown = ""

    def show(self, event: JobEvent) -> None:
        """Show one event."""
        line = self._narrator.describe(event, steps=False)
        if line != self._shown:
            self._shown = line
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Narrator:
    """Puts the events of one job into words."""

    def __init__(self) -> None:
        self._first_attempts: dict[JobStage, int] = {}
        """The attempt in which each stage was first seen: attempts are numbered over all stages of a job."""

    def describe(self, event: JobEvent, *, steps: bool = True) -> str:
        """Say what is being done: `rendering image 2 of 3, step 7 of 20`."""
        words = str(event.state if event.state.terminal or event.stage is None else event.stage)
        if event.step is not None and event.stage is JobStage.RENDERING:
            words += (
                f" image {event.step.image_index + 1} of {event.step.image_count}" if event.step.image_count > 1 else ""
            )
            if steps:
                words += f", step {event.step.step} of {event.step.step_count}"
        return f"{words} again" if self._is_again(event) else words

    def _is_again(self, event: JobEvent) -> bool:
        if event.stage in (None, JobStage.QUEUED):
            return False
        # What is rendered is uploaded in the same attempt.
        stage = JobStage.RENDERING if event.stage is JobStage.UPLOADING else event.stage
        return event.attempt > self._first_attempts.setdefault(stage, event.attempt)
