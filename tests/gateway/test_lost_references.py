"""Jobs that were accepted with a picture of the user's own which is gone when they are rendered."""

from dataclasses import asdict

from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobState, NewJob
from ourvidz_gateway.uploads import ReferenceImage
from support.jobs import Bench, ended, painted_job
from support.pictures import file_of, halves
from support.renderer import Renderer

PICTURE = file_of(halves())
WARNING = "The reference image was deleted before it was used; rendered without it."


async def following_job(gateway: Gateway, renderer: Renderer, image: ReferenceImage, prompt: str) -> NewJob:
    """A job that follows an upload, as admission makes it."""
    own = await gateway.parts.references._find("alice", image.bucket, image.key)
    assert own
    reference = {"role": "image", "url": "", "own_id": own.id, "stored": asdict(own.stored)}
    return painted_job(prompt=prompt, references=[reference])


async def test_a_picture_that_is_there_is_followed(gateway: Gateway, renderer: Renderer):
    image = await gateway.parts.uploads.upload("alice", PICTURE)
    job = await following_job(gateway, renderer, image, "echo")

    await gateway.accept(job)

    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
    done = await gateway.get("alice", job.id)
    assert done.metadata["reference_engine"] == "echo"
    assert WARNING not in done.warnings


async def test_one_that_was_deleted_meanwhile_is_done_without_and_the_job_says_so(
    gateway: Gateway, renderer: Renderer, bench: Bench
):
    first = painted_job(prompt="hold:0:1")
    image = await gateway.parts.uploads.upload("alice", PICTURE)
    job = await following_job(gateway, renderer, image, "a fox")
    await gateway.accept(first)
    await renderer.gate.held()
    await gateway.accept(job)

    await gateway.parts.uploads.delete("alice", image.id)
    await bench.until("count(*) = 0 FROM reference_images")
    renderer.gate.release()

    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
    done = await gateway.get("alice", job.id)
    assert done.warnings == [WARNING, "painted, not rendered"]
    assert len(done.assets) == 1
    assert "reference_engine" not in done.metadata
    # It cost no attempt, and what is stored of the job is what was rendered.
    row = await bench.database.fetchrow("SELECT failures, request FROM jobs WHERE id = $1", job.id)
    assert row["failures"] == 0
    assert row["request"]["references"][0]["stored"] is None
    attempts = await bench.database.fetch(
        "SELECT outcome, reason FROM attempts WHERE job_id = $1 ORDER BY attempt", job.id
    )
    assert [tuple(attempt) for attempt in attempts] == [("handed_back", "REFERENCE_GONE"), ("completed", None)]
