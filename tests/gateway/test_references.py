"""Reference pictures on a real database and a real store: found again by their URLs, and fetched for jobs."""

import hashlib
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from PIL import Image

from ourvidz_gateway.database import Database
from ourvidz_gateway.decoding import Decoder
from ourvidz_gateway.errors import StorageUnavailable
from ourvidz_gateway.guarded_http import GuardedClient
from ourvidz_gateway.plan import Reference, ReferenceRole, RenderPlan, StoredReference, user_folder
from ourvidz_gateway.references import BUCKET, MAX_SIDE_PX, References, without_lost
from ourvidz_gateway.uploads import ReferenceImage, Uploads
from ourvidz_serving.pictures import MAX_FILE_BYTES, read_picture
from ourvidz_serving.storage import LocalStore, ObjectStore, StoreUnavailable, UrlSigner, open_store
from support.jobs import new_job
from support.pictures import BAD_FILES, BLUE, RED, file_of, halves, turned_jpeg
from support.web_host import WebHost, page, redirect, web_host

DAY = timedelta(days=1)
JOB = UUID("0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = LocalStore(tmp_path / "objects", UrlSigner("s" * 32, "https://ourvidz.example.com/files/"))
    yield store
    await store.close()


@pytest.fixture
async def host() -> AsyncIterator[WebHost]:
    async with web_host() as host:
        yield host


@pytest.fixture
def references(database: Database, store: LocalStore, host: WebHost) -> References:
    return References(database, store, client(host), Decoder())


@pytest.fixture
def uploads(database: Database, store: LocalStore) -> Uploads:
    return uploads_to(database, store)


def uploads_to(database: Database, store: ObjectStore) -> Uploads:
    return Uploads(database, store, Decoder(), quota_bytes=2**20, on_deleted=lambda: None)


def client(host: WebHost, **options) -> GuardedClient:
    return GuardedClient([host.host], setting="OURVIDZ_REFERENCE_HOSTS", **{"allow_private": True, **options})


def plan_with(*references: Reference) -> RenderPlan:
    job_type = "sdxl_image_fast" if references[0].role is ReferenceRole.IMAGE else "video_fast"
    return replace(RenderPlan.from_json(new_job(job_type=job_type).request), references=references)


def to_fetch(host: WebHost, path: str = "/cat.png", role: ReferenceRole = ReferenceRole.IMAGE) -> RenderPlan:
    return plan_with(Reference(role, host.url(path)))


async def settled(references: References, plan: RenderPlan) -> tuple[StoredReference | None, list[str]]:
    after, warnings = await references.settle(plan, user_id="alice", job_id=JOB)
    assert replace(after, references=plan.references) == plan
    return after.references[0].stored, warnings


async def files(store: ObjectStore) -> list[str]:
    return list(await store.list(BUCKET))


def is_near(pixel, colour) -> bool:
    return all(abs(one - other) < 30 for one, other in zip(pixel, colour, strict=True))


async def own(references: References, url: str, user: str = "alice", buckets=("clips",)):
    return await references.find_own(user, [url], buckets)


class TestFindOwn:
    @pytest.fixture
    async def image(self, uploads) -> ReferenceImage:
        return await uploads.upload("alice", file_of(halves(), "JPEG"))

    @pytest.fixture
    async def url(self, store, image) -> str:
        return await store.presign_get(image.bucket, image.key, expires=DAY)

    async def test_an_upload_is_found_by_its_url(self, references, image, url):
        found = (await own(references, url))[url]

        assert (found.id, found.mime_type, found.size_bytes) == (str(image.id), "image/jpeg", image.size_bytes)
        assert found.stored == StoredReference(BUCKET, image.key, hashlib.sha256(file_of(halves(), "JPEG")).hexdigest())

    @pytest.mark.parametrize("user", ["auth0|123", "eve@example.com", "5d1e9a52-1a3c-4a0e-8f43-2f7d0f3f1b11"])
    async def test_whatever_the_users_id_is(self, references, uploads, store, user):
        image = await uploads.upload(user, file_of(halves()))
        url = await store.presign_get(image.bucket, image.key, expires=DAY)

        assert (await own(references, url, user))[url].id == str(image.id)

    async def test_the_signature_does_not_matter(self, references, url):
        """The caller has shown who they are; a link that has expired still names their file."""
        bare = url.partition("?")[0]

        assert (await own(references, bare))[bare]
        assert (await own(references, f"{bare}?token=expired"))[f"{bare}?token=expired"]

    async def test_the_origin_may_be_spelt_in_other_ways(self, references, url):
        spelt = url.replace("https://ourvidz.example.com/", "HTTPS://OurVidz.Example.com:443/")

        assert (await own(references, spelt))[spelt]

    async def test_another_users_upload_is_not_there(self, references, url):
        assert await own(references, url, "bob") == {url: None}

    async def test_a_deleted_upload_is_not_there(self, references, uploads, image, url):
        await uploads.delete("alice", image.id)

        assert await own(references, url) == {url: None}

    @pytest.mark.parametrize(
        "change",
        [
            lambda url, image: url.replace(str(image.id), str(uuid4())),
            lambda url, image: url.replace(str(image.id), str(image.id).upper()),
            lambda url, image: url.replace(f"alice/{image.id}", f"bob/{image.id}"),
            lambda url, image: url.replace(f"alice/{image.id}", f"alice/../alice/{image.id}"),
            lambda url, image: url.replace(f"alice/{image.id}", f"alice/{image.id}/"),
            lambda url, image: url.replace(f"alice/{image.id}", f"alice%00/{image.id}"),
            lambda url, image: url.replace(f"alice/{image.id}", f"%ff/{image.id}"),
            lambda url, image: url.replace("/reference-images/", "/clips/"),
            lambda url, image: url.replace("/reference-images/", "/elsewhere/"),
            lambda url, image: url.replace("/objects/", "/"),
            lambda url, image: "https://ourvidz.example.com",
            lambda url, image: "https://ourvidz.example.com/api/jobs",
        ],
    )
    async def test_another_path_at_our_origin_names_nothing(self, references, image, url, change):
        changed = change(url, image)

        assert changed != url
        assert await own(references, changed) == {changed: None}

    @pytest.mark.parametrize(
        "origin",
        [
            "http://ourvidz.example.com",
            "https://ourvidz.example.com:8443",
            "https://ourvidz.example.com.evil.example",
            "https://evil.example/https://ourvidz.example.com",
            "https://ourvidz.example.com@evil.example",
        ],
    )
    async def test_the_same_path_at_another_origin_is_not_ours(self, references, url, origin):
        assert await own(references, url.replace("https://ourvidz.example.com", origin)) == {}

    @pytest.mark.parametrize("url", ["cat.png", "https://", "https://[::1/", "https://a b/", "\\\\ourvidz", "x" * 3000])
    async def test_what_is_no_url_is_not_ours(self, references, url):
        assert await own(references, url) == {}

    async def test_an_output_of_the_users_own_job_is_found(self, references, store, database, bench):
        job_id, asset_id = await bench.add_job(), uuid4()
        key = f"alice/{job_id}/1/0.png"
        await database.execute(
            "INSERT INTO assets (id, job_id, user_id, index, bucket, key, mime_type, size_bytes, sha256, width_px,"
            " height_px, seed, job_type) VALUES ($1, $2, 'alice', 0, 'clips', $3, 'image/png', 9, $4, 64, 48, 7, 'x')",
            asset_id,
            job_id,
            key,
            b"\xab" * 32,
        )
        url = await store.presign_get("clips", key, expires=DAY)

        found = (await own(references, url))[url]

        assert (found.id, found.stored) == (str(asset_id), StoredReference("clips", key, "ab" * 32))
        assert await own(references, url, "bob") == {url: None}
        await database.execute("UPDATE assets SET deleted_at = now()")
        assert await own(references, url) == {url: None}


class TestSettle:
    async def test_a_picture_is_fetched_checked_and_stored_as_png_under_the_job(self, references, store, host):
        host.pages["/cat.png"] = page(file_of(halves(), "JPEG", quality=95), Content_Type="application/octet-stream")

        stored, warnings = await settled(references, to_fetch(host))

        assert warnings == []
        assert (stored.bucket, stored.key) == (BUCKET, f"alice/{JOB}/image.png")
        data = await store.get(stored.bucket, stored.key)
        assert hashlib.sha256(data).hexdigest() == stored.sha256
        picture = Image.open(io.BytesIO(data))
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (64, 48))
        assert is_near(picture.getpixel((5, 5)), RED)
        assert is_near(picture.getpixel((60, 5)), BLUE)

    async def test_both_frames_of_a_clip(self, references, host):
        host.pages |= {"/a": page(file_of(halves())), "/b": page(file_of(halves(8, 8), "WEBP"))}
        plan = plan_with(
            Reference(ReferenceRole.START_FRAME, host.url("/a")), Reference(ReferenceRole.END_FRAME, host.url("/b"))
        )

        after, warnings = await references.settle(plan, user_id="auth0|1", job_id=JOB)

        assert warnings == []
        assert [reference.stored.key for reference in after.references] == [
            f"{user_folder('auth0|1')}/{JOB}/start_frame.png",
            f"{user_folder('auth0|1')}/{JOB}/end_frame.png",
        ]

    async def test_it_is_turned_as_its_camera_was(self, references, store, host):
        host.pages["/cat.png"] = page(turned_jpeg())

        stored, _ = await settled(references, to_fetch(host))

        picture = read_picture(await store.get(stored.bucket, stored.key))
        assert picture.size == (48, 64)
        assert is_near(picture.getpixel((5, 5)), RED)
        assert is_near(picture.getpixel((5, 60)), BLUE)

    async def test_a_large_one_is_made_smaller(self, references, store, host):
        host.pages["/cat.png"] = page(file_of(halves(4000, 100)))

        stored, _ = await settled(references, to_fetch(host))

        picture = read_picture(await store.get(stored.bucket, stored.key))
        assert picture.size == (MAX_SIDE_PX, 38)

    async def test_noise_of_the_largest_size_stays_within_what_renderers_read(self, references, store, host):
        noise = Image.effect_noise((MAX_SIDE_PX, MAX_SIDE_PX), 100)
        host.pages["/cat.png"] = page(file_of(Image.merge("RGB", [noise, noise.rotate(90), noise.rotate(180)]), "WEBP"))

        stored, warnings = await settled(references, to_fetch(host))

        assert warnings == []
        assert (await store.stat(stored.bucket, stored.key)).size_bytes <= MAX_FILE_BYTES

    async def test_no_colour_profile_comes_along(self, references, store, host):
        host.pages["/cat.png"] = page(file_of(halves(), icc_profile=b"profile" * 1000))

        stored, _ = await settled(references, to_fetch(host))

        assert "icc_profile" not in Image.open(io.BytesIO(await store.get(stored.bucket, stored.key))).info

    async def test_done_again_it_comes_to_the_same_without_a_download(self, references, host):
        host.pages["/cat.png"] = page(file_of(halves()))
        plan = to_fetch(host)
        first = await references.settle(plan, user_id="alice", job_id=JOB)
        host.pages["/cat.png"] = page(file_of(halves(8, 8)))

        assert await references.settle(plan, user_id="alice", job_id=JOB) == first
        assert await references.settle(first[0], user_id="alice", job_id=JOB) == first
        assert len(host.asked) == 1

    async def test_of_two_gateways_the_one_that_stored_first_is_right(self, references, store, host, monkeypatch):
        """The other one was taken for dead amid its download, and is not."""
        host.pages["/cat.png"] = page(file_of(halves()))
        earlier = file_of(halves(8, 8))

        async def overtaken(*_, **__):
            await store.put(BUCKET, f"alice/{JOB}/image.png", earlier, content_type="image/png")
            return file_of(halves())

        monkeypatch.setattr(references._client, "fetch", overtaken)

        stored, _ = await settled(references, to_fetch(host))

        assert stored.sha256 == hashlib.sha256(earlier).hexdigest()

    async def test_the_users_own_file_is_left_as_it_is(self, references, host):
        own = Reference(
            ReferenceRole.IMAGE, host.url(), own_id="7", stored=StoredReference("clips", "alice/x.png", "ab" * 32)
        )

        assert await settled(references, plan_with(own)) == (own.stored, [])
        assert host.asked == []

    @pytest.mark.parametrize("file", BAD_FILES.values(), ids=BAD_FILES)
    async def test_what_is_no_picture_becomes_a_warning(self, references, store, host, file):
        host.pages["/cat.png"] = page(file, Content_Type="image/png")

        stored, warnings = await settled(references, to_fetch(host))

        assert stored is None
        (warning,) = warnings
        assert warning.startswith("The reference image could not be fetched: it ")
        assert warning.endswith("; rendered without it.")
        assert await files(store) == []

    @pytest.mark.parametrize(
        ("role", "words"),
        [
            (ReferenceRole.IMAGE, "The reference image"),
            (ReferenceRole.START_FRAME, "The start frame"),
            (ReferenceRole.END_FRAME, "The end frame"),
        ],
    )
    async def test_what_can_not_be_had_becomes_a_warning_in_words(self, references, host, role, words):
        assert await settled(references, to_fetch(host, "/gone.png", role)) == (
            None,
            [f"{words} could not be fetched: its server answers 404; rendered without it."],
        )

    async def test_a_file_over_ten_megabytes_becomes_a_warning(self, references, host):
        host.pages["/cat.png"] = page(b"", Content_Length=str(MAX_FILE_BYTES + 1))

        stored, warnings = await settled(references, to_fetch(host))

        assert stored is None
        assert "it is larger than 10 MB" in warnings[0]

    async def test_a_private_address_becomes_a_warning(self, database, store, host):
        guarded = References(
            database, store, GuardedClient(["localhost"], setting="OURVIDZ_REFERENCE_HOSTS"), Decoder()
        )

        stored, warnings = await settled(
            guarded, plan_with(Reference(ReferenceRole.IMAGE, "https://localhost/cat.png"))
        )

        assert stored is None
        assert "its host is not at a public address" in warnings[0]

    async def test_a_redirect_to_a_host_that_is_not_allowed_becomes_a_warning(self, references, host):
        host.pages["/cat.png"] = redirect("http://169.254.169.254/latest/meta-data")

        _, warnings = await settled(references, to_fetch(host))

        assert 'the host "169.254.169.254" is not allowed' in warnings[0]

    async def test_the_others_are_fetched_when_one_can_not_be_had(self, references, host):
        host.pages["/b"] = page(file_of(halves()))
        plan = plan_with(
            Reference(ReferenceRole.START_FRAME, host.url("/a")), Reference(ReferenceRole.END_FRAME, host.url("/b"))
        )

        after, warnings = await references.settle(plan, user_id="alice", job_id=JOB)

        assert [reference.stored is None for reference in after.references] == [True, False]
        assert len(warnings) == 1

    @pytest.mark.parametrize("call", ["get", "put"])
    async def test_a_store_out_of_reach_is_no_warning(self, references, store, host, monkeypatch, call):
        host.pages["/cat.png"] = page(file_of(halves()))

        async def fail(*_, **__):
            raise StoreUnavailable("down")

        monkeypatch.setattr(store, call, fail)

        with pytest.raises(StorageUnavailable):
            await references.settle(to_fetch(host), user_id="alice", job_id=JOB)


class TestWithoutLost:
    PLAN = plan_with(
        Reference(ReferenceRole.START_FRAME, "a", own_id="1", stored=StoredReference("b", "start", "ab")),
        Reference(ReferenceRole.END_FRAME, "c", own_id="2", stored=StoredReference("b", "end", "cd")),
    )

    @pytest.mark.parametrize("part", ["key", "sha256"])
    def test_a_picture_that_is_no_longer_there_is_left_out_with_a_warning(self, part):
        plan, warnings = without_lost(self.PLAN, [f"clip.end_frame.stored.{part}"])

        assert [reference.stored and reference.stored.key for reference in plan.references] == ["start", None]
        assert plan.stages == self.PLAN.stages
        assert warnings == ["The end frame was deleted before it was used; rendered without it."]

    @pytest.mark.parametrize("fields", [[], ["images.sampling.seed"], ["clip.end_frame.stored.bucket"]])
    def test_another_refusal_is_none_of_its_business(self, fields):
        assert without_lost(self.PLAN, fields) is None


async def test_on_s3(s3_server, database, host):
    """Uploads are found by the URLs that an S3 server's public endpoint signs, and fetched pictures are stored once."""
    store = open_store(s3_server.settings(public_endpoint="https://files.example.com"))
    references = References(database, store, client(host), Decoder())
    host.pages["/cat.png"] = page(file_of(halves()))
    job_id = uuid4()
    try:
        image = await uploads_to(database, store).upload("alice", file_of(halves(), "WEBP"))
        url = await store.presign_get(image.bucket, image.key, expires=DAY)
        first = await references.settle(to_fetch(host), user_id="alice", job_id=job_id)
        second = await references.settle(to_fetch(host), user_id="alice", job_id=job_id)

        assert url.startswith(f"https://files.example.com/{BUCKET}/alice/")
        assert (await own(references, url))[url].id == str(image.id)
        assert await own(references, url, "bob") == {url: None}
        assert first == second
        assert first[1] == []
        assert len(host.asked) == 1
    finally:
        await store.close()
