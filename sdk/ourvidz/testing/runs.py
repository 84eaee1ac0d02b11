"""Runs jobs: what the renderers are to the service, with nothing rendered."""

from __future__ import annotations

from threading import Thread

from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.testing import pictures
from ourvidz.testing.world import CANCELLED, CANCELLED_MESSAGE, COMPLETED, FAILED, PROCESSING, FakeJob, World, now

DENOISING_SHARE = 95
"""Percent of the progress that the steps make up, as in the service."""


class Runs:
    """Runs each job in a thread of its own, from `start` until `stop`.

    `step_count` steps are made for each image, with `step_pause_s` seconds before each.
    """

    def __init__(self, world: World, *, step_count: int, step_pause_s: float) -> None:
        self._world = world
        self._step_count = step_count
        self._step_pause_s = step_pause_s
        self._threads: list[Thread] = []

    def start(self, job: FakeJob) -> None:
        """Begin with a job; the caller holds the world's lock, and the job moves once it lets go."""
        thread = Thread(target=self._run, args=(job,), name=f"job {job.message.id}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Wait until no job moves any more; the world is closed already."""
        for thread in self._threads:
            thread.join()

    def _run(self, job: FakeJob) -> None:
        with self._world.changed:
            _Run(self._world, job, self._step_count, self._step_pause_s).to_the_end()


class _Run:
    """One job on its way; holds the world's lock, but for when it waits."""

    def __init__(self, world: World, job: FakeJob, step_count: int, step_pause_s: float) -> None:
        self._world = world
        self._job = job
        self._step_count = step_count
        self._step_pause_s = step_pause_s
        self._steps_done = 0
        self._attempt = 0

    def to_the_end(self) -> None:
        # A queued job that is cancelled has ended already.
        if not self._goes_on() or self._job.ended:
            return
        self._job.message.start_time.CopyFrom(now())
        if self._job.job_type.enhanced:
            self._enhance()
        self._attempt += 1
        self._tell(jobs_pb2.JOB_STAGE_RENDERING)
        for image in range(self._job.image_count):
            for step in range(1, self._step_count + 1):
                self._wait(self._step_pause_s)
                if not self._goes_on():
                    return
                self._steps_done += 1
                detail = jobs_pb2.StepDetail(
                    step=step, step_count=self._step_count, image_index=image, image_count=self._job.image_count
                )
                self._tell(jobs_pb2.JOB_STAGE_RENDERING, step=detail)
        if self._goes_on():
            self._tell(jobs_pb2.JOB_STAGE_UPLOADING)
            self._complete()

    def _goes_on(self) -> bool:
        """Do what the script says for this moment, wait where it says so, and tell whether the job still runs."""
        job, script, world = self._job, self._job.script, self._world
        if self._steps_done >= min(script.after_steps, self._step_count * job.image_count):
            if script.held:
                world.changed.wait_for(lambda: job.released or job.cancel_requested or world.closed)
            if script.cancelled and not job.cancel_requested:
                world.cancel(job)
            if script.fails is not None and not job.cancel_requested:
                world.end(job, FAILED, error_message=script.fails, attempt=self._attempt)
        if job.cancel_requested and not job.ended:
            world.end(
                job,
                CANCELLED,
                outputs=self._outputs(self._steps_done // self._step_count),
                error_message=CANCELLED_MESSAGE,
                attempt=self._attempt,
            )
        return not job.ended and not world.closed

    def _enhance(self) -> None:
        job = self._job
        self._attempt += 1
        self._tell(jobs_pb2.JOB_STAGE_ENHANCING)
        prompt = job.message.metadata["prompt"]
        job.message.metadata.update({"enhanced_prompt": f"{prompt}, in fine detail", "original_prompt": prompt})
        self._world.tell(job, stage=jobs_pb2.JOB_STAGE_QUEUED, attempt=self._attempt)

    def _complete(self) -> None:
        job, job_type = self._job, self._job.job_type
        job.message.metadata.update(
            {"model": job_type.model_variant, "width": job_type.width_px, "height": job_type.height_px}
        )
        self._world.end(job, COMPLETED, outputs=self._outputs(job.image_count), attempt=self._attempt)

    def _outputs(self, count: int) -> list[tuple[bytes, str]]:
        job_type, seed = self._job.job_type, self._job.message.seed
        if job_type.duration_s is not None:
            return [(pictures.clip(), "video/mp4")] * count
        return [
            (pictures.png(job_type.width_px, job_type.height_px, (seed + index) % 2**32), "image/png")
            for index in range(count)
        ]

    def _tell(self, stage: jobs_pb2.JobStage.ValueType, step: jobs_pb2.StepDetail | None = None) -> None:
        progress = DENOISING_SHARE * self._steps_done // (self._step_count * self._job.image_count)
        detail = {} if step is None else {"step": step}
        self._world.tell(self._job, state=PROCESSING, stage=stage, progress=progress, attempt=self._attempt, **detail)

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._world.changed.wait_for(lambda: self._job.cancel_requested or self._world.closed, seconds)
