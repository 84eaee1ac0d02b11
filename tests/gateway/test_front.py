"""What both fronts share, over a gateway with a real database and store."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ourvidz_gateway.draft import JobDraft
from ourvidz_gateway.errors import IdempotencyConflict, InvalidReferenceImage, InvalidRequest
from ourvidz_gateway.front import Front
from ourvidz_gateway.gateway import open_gateway
from ourvidz_serving.storage import LocalStore, UrlSigner
from support import fronts
from support.jobs import CATALOG, Bench
from support.pictures import file_of, halves


@pytest.fixture
async def front(dsn, tmp_path) -> AsyncIterator[Front]:
    # Nothing listens there, so that jobs stay.
    settings = fronts.settings(database_url=dsn, renderers_sdxl="127.0.0.1:1")
    store = LocalStore(tmp_path, UrlSigner("a secret of the tests, for signed URLs", fronts.PUBLIC_URL))
    async with open_gateway(settings, store) as gateway:
        yield Front.over(gateway, catalog=CATALOG, store=store, settings=settings)


async def test_the_same_request_is_the_same_job_though_its_reference_is_gone(front: Front, bench: Bench):
    uploaded = await front.upload_reference("alice", file_of(halves()), filename="cat.png")
    metadata = {"prompt": "a fox", "reference_image_url": uploaded.url}
    draft = JobDraft(job_type="sdxl_image_fast", metadata=metadata, idempotency_key="k")
    first, _ = await front.create_job(draft, "alice")
    await bench.database.execute("UPDATE reference_images SET deleted_at = now()")

    again, job_type = await front.create_job(draft, "alice")

    assert again.job.id == first.job.id
    assert again.queue_length == 1
    assert job_type.name == "sdxl_image_fast"
    assert await bench.value("SELECT count(*) FROM jobs") == 1
    for refused in (replace(draft, idempotency_key=None), replace(draft, idempotency_key="other")):
        with pytest.raises(InvalidReferenceImage):
            await front.create_job(refused, "alice")
    with pytest.raises(InvalidReferenceImage):
        await front.create_job(draft, "bob")
    with pytest.raises(IdempotencyConflict):
        await front.create_job(replace(draft, project_id="p"), "alice")
    with pytest.raises(InvalidRequest):
        await front.create_job(replace(draft, idempotency_key="\x00"), "alice")
