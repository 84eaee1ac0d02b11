"""Write the README's table of job types, from one job of each that was made through REST on a local stack."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from urllib.parse import urljoin

import av
import httpx

from local_stack import running_stack
from ourvidz_gateway.catalog import JobType, load_catalog

README = Path(__file__).resolve().parents[1] / "README.md"
DATA = Path(".data/job-types")
PROMPT = "a lighthouse at dawn"
POLL_S = 0.2
TABLE = re.compile(r"(?<=<!-- job types -->\n).*?(?=<!-- end of job types -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Made:
    """What a job came to, as its file tells."""

    mime_type: str
    width_px: int
    height_px: int
    frame_count: int
    duration_s: Fraction | None
    wall_s: float
    """From the request to the signed URL."""


def main() -> int:
    """Return 1 if a job did not complete."""
    with (
        running_stack(DATA, "table") as stack,
        httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {stack.token}"}, timeout=60) as api,
    ):
        _wait_until_all_can_work(api)
        lines = [_line(job_type, _make(api, job_type)) for job_type in load_catalog().job_types.values()]
    text = README.read_text()
    if not TABLE.search(text):
        sys.exit("the README has no place for the table")
    README.write_text(TABLE.sub(lambda _: "".join(_table(lines)), text))
    return 0


def _wait_until_all_can_work(api: httpx.Client) -> None:
    """Wait until every server has loaded its model, which is not part of any job's time."""
    while not all(
        queue["renderers"] for queue in api.get("/api/queue-status").raise_for_status().json()["queues"].values()
    ):
        time.sleep(POLL_S)


def _make(api: httpx.Client, job_type: JobType) -> Made:
    print(job_type.name, end=" ", flush=True)
    begun = time.monotonic()
    body = {"jobType": job_type.name, "metadata": {"prompt": PROMPT, "seed": 2026}}
    job = api.post("/api/queue-job", json=body).raise_for_status().json()["job"]
    while (job := api.get(f"/api/jobs/{job['id']}").raise_for_status().json())["status"] in ("queued", "processing"):
        time.sleep(POLL_S)
    wall_s = time.monotonic() - begun
    print(f"{job['status']} in {wall_s:.1f} s", flush=True)
    if job["status"] != "completed":
        sys.exit(f"{job_type.name} {job['status']}: {job['error_message']}")
    answer = httpx.get(urljoin(str(api.base_url), job["assets"][0]), timeout=60).raise_for_status()
    return _probe(answer.content, answer.headers["content-type"], wall_s)


def _probe(file: bytes, mime_type: str, wall_s: float) -> Made:
    with av.open(io.BytesIO(file)) as container:
        stream = container.streams.video[0]
        frame_count = sum(1 for _ in container.decode(stream))
        duration = stream.duration * stream.time_base if mime_type.startswith("video/") else None
        return Made(mime_type, stream.width, stream.height, frame_count, duration, wall_s)


def _table(lines: list[str]) -> Iterator[str]:
    yield "| job type | output | size | frames | plays | steps | guidance | wall time |\n"
    yield "|---|---|---|---|---|---|---|---|\n"
    yield from lines


def _line(job_type: JobType, made: Made) -> str:
    count = "/".join(str(count) for count in job_type.image_counts)
    cells = [
        f"`{job_type.name}`",
        f"{count} {made.mime_type.partition('/')[2].upper()}",
        f"{made.width_px}×{made.height_px}",
        str(made.frame_count),
        f"{float(made.duration_s):.1f} s" if made.duration_s else "",
        str(job_type.recipe.step_count),
        f"{job_type.recipe.guidance_scale:.1f}",
        f"{made.wall_s:.1f} s",
    ]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.exit(main())
