"""The double and a real gateway, each asked the same by the same client, tell the same.

What each tells is written down without what differs between any two runs: ids, times, the sizes of files.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from contract.world import BUCKETS, STEPS, open_world
from ourvidz import Asset, AsyncAdminClient, AsyncClient, Job, JobState, OurVidzError, ReferenceType
from ourvidz.testing import FakeOurVidz, pictures
from support import fronts
from support.postgres import Postgres
from support.renderer import serving

WAITING = "image_fast"
"""A job type whose jobs only wait: no renderer of the real gateway's answers for it, and the double is told to hold it."""

FOX = pictures.png(64, 48, 7)


class Real:
    """A gateway on a database, a store and a renderer."""

    def __init__(self, world: Any) -> None:
        self.address = world.grpc_address
        self.url = world.url

    def token(self, user: str, *, operator: bool = False) -> str:
        return fronts.token(user, role="service_role" if operator else "authenticated")

    def let_the_next_wait(self) -> None:
        """Nobody renders what waits here anyway."""

    def let_the_next_fail(self, _message: str) -> str:
        return "invalid"


class Double:
    """The package's own."""

    def __init__(self, service: FakeOurVidz) -> None:
        self.address, self.url, self.token = service.address, service.url, service.token
        self._service = service

    def let_the_next_wait(self) -> None:
        self._service.hold_next()

    def let_the_next_fail(self, message: str) -> str:
        self._service.fail_next(message, after_steps=0)
        return "invalid"


Service = Real | Double


@pytest.fixture(scope="module")
def module_dsn(postgres: Postgres) -> Iterator[str]:
    with postgres.database() as dsn:
        yield dsn


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Real]:
    async with serving(tmp_path_factory.mktemp("same"), buckets=BUCKETS) as renderer:
        await renderer.ready()
        async with open_world(module_dsn, renderer) as world:
            yield Real(world)


@pytest.fixture
def double() -> Iterator[Double]:
    with FakeOurVidz(steps=STEPS) as service:
        yield Double(service)


class Transcript:
    """What one service told, in order."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.told: list[Any] = []

    def client(self, user: str) -> AsyncClient:
        return AsyncClient(self.service.address, self.service.token(user), url=self.service.url)

    def admin(self) -> AsyncAdminClient:
        return AsyncAdminClient(self.service.address, self.service.token("ops", operator=True))

    def tell(self, value: Any) -> None:
        self.told.append(value)

    async def refused(self, call: Awaitable[Any], *, words: bool = True) -> None:
        """Write down how a call is refused."""
        try:
            self.tell(("not refused", await call))
        except OurVidzError as error:
            fields = [bad.field for bad in error.fields]
            self.tell((type(error).__name__, error.reason, fields, str(error) if words else ""))

    def tell_job(self, job: Job) -> None:
        kept = {key: value for key, value in job.metadata.items() if key not in RENDERERS_OWN}
        fields = asdict(job)
        # Warnings are the renderer's, here one that paints and says so.
        for varies in ("id", "user_id", "metadata", "assets", "warnings"):
            del fields[varies]
        for time in ("created_at", "started_at", "completed_at"):
            fields[time] = fields[time] is not None
        self.tell((fields, kept, [self.asset(asset) for asset in job.assets]))

    @staticmethod
    def asset(asset: Asset) -> tuple[Any, ...]:
        return (
            asset.job_type,
            asset.output_index,
            asset.mime_type,
            asset.seed,
            asset.duration_s,
            asset.project_id,
            asset.url.startswith("http://127.0.0.1:"),
            asset.url_expires_at is not None,
            asset.created_at is not None,
        )


RENDERERS_OWN = {
    *("model", "width", "height", "timings", "peak_memory_bytes", "memory_rung", "sizes", "reference_engine"),
}
"""What rendering adds to a job's metadata, which depends on the renderer."""

Scenario = Callable[[Transcript, str, str], Awaitable[None]]
SCENARIOS: list[Scenario] = []


def scenario(play: Scenario) -> Scenario:
    SCENARIOS.append(play)
    return play


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("play", SCENARIOS, ids=lambda play: play.__name__)
async def test_both_tell_the_same(real: Real, double: Double, play: Scenario):
    ann, bob = (f"{name}-{uuid4().hex}" for name in ("ann", "bob"))
    transcripts = [Transcript(service) for service in (real, double)]
    for transcript in transcripts:
        await play(transcript, ann, bob)
    assert transcripts[0].told
    assert transcripts[1].told == transcripts[0].told


async def step_by_step(client: AsyncClient, job_id: str, after: int = 0) -> list[tuple[Any, ...]]:
    return [
        (each.sequence, each.state, each.stage, each.progress, each.attempt, each.step, each.error_message)
        async for each in client.watch(job_id, resume_from=after)
    ]


@scenario
async def pictures_are_made(script: Transcript, ann: str, _: str) -> None:
    async with script.client(ann) as client:
        making = await client.generate(
            "sdxl_image_fast", " a lighthouse ", negative_prompt="fog", image_count=3, seed=2**32 - 1, credits=5,
            project_id="p", video_id="v", image_id="i", metadata={"scene": 3, "deep": {"tags": ["sea", None, 1.5]}},
        )  # fmt: skip
        script.tell_job(await making.result())
        script.tell(await step_by_step(client, making.job.id))
        script.tell(await step_by_step(client, making.job.id, after=4))
        script.tell(await client.credits())
        script.tell_job(await client.cancel_job(making.job.id))


@scenario
async def a_job_waits_and_is_cancelled(script: Transcript, ann: str, _: str) -> None:
    async with script.client(ann) as client:
        script.service.let_the_next_wait()
        job = await client.create_job(WAITING, "a lighthouse", seed=7)
        script.tell_job(await client.get_job(job.id))
        script.tell(await client.credits())
        async with aclosing(client.watch(job.id)) as events:
            first = await anext(events)
            script.tell((first.sequence, first.state, first.stage, first.attempt))
        script.tell_job(await client.cancel_job(job.id))
        script.tell_job(await client.cancel_job(job.id))
        script.tell(await step_by_step(client, job.id))
        script.tell(await client.credits())


@scenario
async def a_job_fails(script: Transcript, ann: str, _: str) -> None:
    async with script.client(ann) as client:
        prompt = script.service.let_the_next_fail("no")
        making = await client.generate("sdxl_image_fast", prompt, credits=7)
        await script.refused(making.result(), words=False)
        job = making.job
        script.tell((job.state, job.stage, job.assets, bool(job.error_message), job.completed_at is not None))
        last = (await step_by_step(client, job.id))[-1]
        script.tell((last[1], last[2], last[-1] == job.error_message))
        script.tell(await client.credits())


@scenario
async def request_ids_stand_for_one_request(script: Transcript, ann: str, bob: str) -> None:
    async with script.client(ann) as client, script.client(bob) as other:
        for _ in range(2):
            script.service.let_the_next_wait()
        first, again = [await client.create_job(WAITING, "a lighthouse", request_id="r") for _ in range(2)]
        script.tell(first.id == again.id)
        await script.refused(client.create_job(WAITING, "another", request_id="r"), words=False)
        script.tell((await other.create_job(WAITING, "another", request_id="r")).id == first.id)
        script.tell(await client.credits())


@scenario
async def lists_come_in_pages_and_by_filter(script: Transcript, ann: str, _: str) -> None:
    async with script.client(ann) as client:
        for number, project in enumerate(("p", "q", "p")):
            making = await client.generate("sdxl_image_fast", f"picture {number}", project_id=project, seed=number)
            await making.result()
        page = await client.list_jobs(page_size=2)
        script.tell([job.metadata["prompt"] for job in page])
        last = await client.list_jobs(page_size=2, page_token=page.next_page_token)
        script.tell(([job.metadata["prompt"] for job in last], last.next_page_token))
        for where in ({"project_id": "p"}, {"state": JobState.FAILED}, {"job_type": WAITING}, {"image_id": "none"}):
            script.tell([job.metadata["prompt"] async for job in client.iter_jobs(**where)])
        assets = [asset async for asset in client.iter_assets()]
        script.tell([script.asset(asset) for asset in assets])
        script.tell([script.asset(asset) async for asset in client.iter_assets(project_id="q")])
        page = await client.list_assets(page_size=3, job_type="sdxl_image_fast")
        script.tell((len(page), page.next_page_token))
        await client.delete_asset(assets[0].id)
        await script.refused(client.delete_asset(assets[0].id))
        script.tell([asset.seed async for asset in client.iter_assets()])
        script.tell((await client.get_job(assets[0].job_id)).assets)
        for bad in ({"page_size": 101}, {"page_size": -1}, {"page_token": "rubbish"}):
            await script.refused(client.list_jobs(**bad))
            await script.refused(client.list_assets(**bad))
            await script.refused(client.list_reference_images(**bad))
        await script.refused(client.list_jobs(job_type="mood"))
        await script.refused(client.list_assets(job_type="mood"))
        await script.refused(client.list_jobs(project_id="a\nb"))


@scenario
async def pictures_are_brought_and_followed(script: Transcript, ann: str, bob: str) -> None:
    async with script.client(ann) as client, script.client(bob) as other:
        first = await client.upload_reference(FOX, filename="fox.png")
        second = await client.upload_reference(FOX)
        script.tell([(image.filename, image.mime_type, image.width_px, image.height_px) for image in (first, second)])
        page = await client.list_reference_images(page_size=1)
        script.tell(([image.id == second.id for image in page], bool(page.next_page_token)))
        follows = {"reference_image_url": first.url, "reference_type": ReferenceType.CHARACTER, "seed": 7}
        job = await (
            await client.generate("sdxl_image_fast", "a lighthouse", reference_strength=1.0, **follows)
        ).result()
        script.tell((job.state, job.metadata["reference_image_url"] == first.url))
        script.tell(sorted(job.metadata.keys() - RENDERERS_OWN))
        await script.refused(other.create_job("sdxl_image_fast", "a lighthouse", reference_image_url=first.url))
        await script.refused(other.delete_reference_image(first.id))
        await client.delete_reference_image(first.id)
        await script.refused(client.delete_reference_image(first.id))
        await script.refused(client.create_job("sdxl_image_fast", "a lighthouse", reference_image_url=first.url))
        script.tell(len([image async for image in client.iter_reference_images()]))
        for data in (b"", b"fox", FOX[:40], bytes(10 * 2**20 + 1)):
            await script.refused(client.upload_reference(data), words=False)


@scenario
async def what_is_not_there_is_not_found(script: Transcript, ann: str, bob: str) -> None:
    async with script.client(ann) as client, script.client(bob) as other:
        script.service.let_the_next_wait()
        job = await client.create_job(WAITING, "a lighthouse")
        for user, job_id in ((other, job.id), (client, "x"), (client, f"{{{job.id}}}"), (client, "")):
            for call in (user.get_job, user.cancel_job):
                await script.refused(call(job_id), words=False)
            await script.refused(anext(user.watch(job_id)), words=False)
            await script.refused(user.delete_asset(job_id))
            await script.refused(user.delete_reference_image(job_id))
        script.tell((await client.get_job(job.id.upper())).id == job.id)


@scenario
async def bad_requests_are_refused_in_the_same_words(script: Transcript, ann: str, _: str) -> None:
    async with script.client(ann) as client:
        for job_type, options in (
            ("", {}),
            ("mood", {}),
            ("sdxl_image_fast", {"image_count": 2}),
            ("sdxl_image_fast", {"seed": -1}),
            ("sdxl_image_fast", {"start_timeout_s": 0.5}),
            ("sdxl_image_fast", {"start_timeout_s": 86_401}),
            ("sdxl_image_fast", {"metadata": {"seed": 7}}),
            ("sdxl_image_fast", {"metadata": {"big": float("inf")}}),
            ("sdxl_image_fast", {"credits": -1}),
            ("video_fast", {"reference_type": ReferenceType.STYLE}),
            ("video_fast", {"start_reference_image_url": "http://images.example.com/x.png"}),
            ("sdxl_image_fast", {"webhook_url": "https://hooks.example.com/x"}),
        ):
            await script.refused(client.create_job(job_type, "a lighthouse", **options))
        for field in ("request_id", "project_id", "image_id"):
            await script.refused(
                client.create_job("sdxl_image_fast", "a lighthouse", **{field: "x" * 201}), words=False
            )
        await script.refused(client.create_job("sdxl_image_fast", "\n"))
        await script.refused(client.create_job("sdxl_image_fast", "a\0b"))
        script.tell(len([job async for job in client.iter_jobs()]))


@scenario
async def credits_are_granted_and_run_short(script: Transcript, ann: str, bob: str) -> None:
    async with script.client(ann) as client, script.admin() as admin:
        script.tell(await admin.get_credits(ann))
        script.tell(await client.credits())
        script.tell(await admin.grant_credits(ann, -998, request_id=f"r-{ann}"))
        script.tell(await admin.grant_credits(ann, -998, request_id=f"r-{ann}"))
        await script.refused(admin.grant_credits(ann, -997, request_id=f"r-{ann}"), words=False)
        await script.refused(admin.grant_credits(ann, -3), words=False)
        await script.refused(admin.grant_credits(ann, 0), words=False)
        await script.refused(admin.grant_credits(ann, 10**9 + 1), words=False)
        await script.refused(admin.grant_credits("", 1), words=False)
        await script.refused(admin.grant_credits(ann, 1, note="n" * 501), words=False)
        await script.refused(client.create_job("sdxl_image_fast", "a lighthouse", credits=3), words=False)
        script.tell(await client.credits())
        script.tell(await admin.get_credits(bob))
        await script.refused(admin.get_credits(""), words=False)
        await script.refused(admin.retry_delivery(str(uuid4())))
        await script.refused(admin.retry_delivery("d"))
        await script.refused(admin.release_quarantined(str(uuid4())), words=False)
        job = await (await client.generate("sdxl_image_fast", "a lighthouse")).result()
        await script.refused(admin.release_quarantined(job.id), words=False)
        script.tell([each async for each in admin.iter_deliveries(user_id=ann)])
        script.tell([each async for each in admin.iter_quarantined(user_id=ann)])
    async with AsyncAdminClient(script.service.address, script.service.token(ann)) as user:
        await script.refused(user.get_credits(ann))


@scenario
async def queues_are_told_by_name(script: Transcript, ann: str, _: str) -> None:
    async with script.client(ann) as client:
        status = await client.queue_status()
        script.tell([queue.name for queue in status.queues])


@scenario
async def whoever_shows_no_good_token_is_told_so(script: Transcript, ann: str, _: str) -> None:
    for token in (None, "a.b.c"):
        async with AsyncClient(script.service.address, token) as client:
            await script.refused(client.get_job("x"))
            await script.refused(client.upload_reference(FOX))
            await script.refused(anext(client.watch("x")))
