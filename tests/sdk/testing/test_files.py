"""Files and credits in the double are kept as the service keeps them."""

from __future__ import annotations

import grpc
import httpx
import pytest

from ourvidz import AdminClient, Client, Credits, ReferenceImage
from ourvidz.api.assets.v1 import assets_pb2, assets_pb2_grpc
from ourvidz.errors import (
    AssetNotFound,
    DeliveryNotFound,
    FileTooLarge,
    IdempotencyConflict,
    InsufficientCredits,
    InvalidReferenceImage,
    InvalidRequest,
    JobNotFound,
    JobNotQuarantined,
    PermissionDenied,
    ReferenceImageNotFound,
    StorageUnavailable,
)
from ourvidz.testing import FakeOurVidz, pictures


def upload(client: Client, filename: str = "fox.png") -> ReferenceImage:
    return client.upload_reference(pictures.png(30, 20, 7), filename=filename)


def test_an_upload_can_be_opened_listed_followed_and_deleted(ann: Client):
    first, second = upload(ann), upload(ann, "cat.png")
    assert (first.filename, first.mime_type, first.width_px, first.height_px) == ("fox.png", "image/png", 30, 20)
    assert httpx.get(first.url, trust_env=False).content == pictures.png(30, 20, 7)
    assert [image.id for image in ann.iter_reference_images()] == [second.id, first.id]
    page = ann.list_reference_images(page_size=1)
    assert [image.id for image in ann.list_reference_images(page_token=page.next_page_token)] == [first.id]
    ann.create_job("sdxl_image_fast", "a lighthouse", reference_image_url=first.url.partition("?")[0])
    ann.delete_reference_image(first.id)
    assert httpx.get(first.url, trust_env=False).status_code == 404
    with pytest.raises(ReferenceImageNotFound):
        ann.delete_reference_image(first.id)
    with pytest.raises(InvalidReferenceImage, match="no such reference image"):
        ann.create_job("sdxl_image_fast", "a lighthouse", reference_image_url=first.url)


def test_another_users_files_are_not_there(ann: Client, bob: Client):
    image = upload(ann)
    asset = ann.generate("image_fast", "a lighthouse").result().assets[0]
    with pytest.raises(ReferenceImageNotFound):
        bob.delete_reference_image(image.id)
    with pytest.raises(AssetNotFound):
        bob.delete_asset(asset.id)
    for url in (image.url, asset.url):
        with pytest.raises(InvalidReferenceImage, match="no such reference image"):
            bob.create_job("sdxl_image_fast", "a lighthouse", reference_image_url=url)
        ann.create_job("sdxl_image_fast", "a lighthouse", reference_image_url=url)
    assert list(bob.iter_assets()) == list(bob.iter_reference_images()) == []


def test_a_clip_is_no_picture_to_follow(ann: Client):
    (asset,) = ann.generate("video_fast", "a walk").result().assets
    with pytest.raises(InvalidReferenceImage):
        ann.create_job("sdxl_image_fast", "a lighthouse", reference_image_url=asset.url)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"fox", InvalidReferenceImage), (b"", InvalidReferenceImage), (bytes(10 * 2**20 + 1), FileTooLarge)],
)
def test_a_file_that_is_no_picture_or_too_large_is_refused(ann: Client, data: bytes, kind: type[Exception]):
    with pytest.raises(kind):
        ann.upload_reference(data)
    assert len(ann.list_reference_images()) == 0


def test_a_picture_of_too_many_pixels_is_refused(ann: Client):
    with pytest.raises(InvalidReferenceImage, match="50 megapixels"):
        ann.upload_reference(pictures.png(10_000, 5_001, 7))


def test_a_call_of_any_kind_can_be_refused(service: FakeOurVidz, ann: Client):
    service.refuse_next(StorageUnavailable("The storage is away."), call="UploadReferenceImage")
    with pytest.raises(StorageUnavailable):
        upload(ann)
    upload(ann)


def test_assets_are_listed_with_their_job_and_deleted_with_their_file(ann: Client):
    job = ann.generate("sdxl_image_fast", "a lighthouse", image_count=3, seed=7, project_id="p").result()
    clip = ann.generate("video_fast", "a walk").result()
    newest, *rest = ann.iter_assets()
    assert (newest.job_id, newest.duration_s, newest.project_id) == (clip.id, 5.0, None)
    assert [(asset.job_id, asset.output_index) for asset in rest] == [(job.id, 2), (job.id, 1), (job.id, 0)]
    assert all(asset.created_at for asset in rest)
    assert [asset.id for asset in ann.list_assets(project_id="p")] == [asset.id for asset in rest]
    assert [asset.id for asset in ann.list_assets(job_type="video_fast")] == [newest.id]
    ann.delete_asset(rest[1].id)
    assert httpx.get(rest[1].url, trust_env=False).status_code == 404
    assert [asset.seed - job.seed for asset in ann.get_job(job.id).assets] == [0, 2]
    with pytest.raises(AssetNotFound):
        ann.delete_asset(rest[1].id)


def test_a_file_opens_by_its_whole_url_alone(ann: Client):
    (asset,) = ann.generate("image_fast", "a lighthouse").result().assets
    assert httpx.get(asset.url.partition("?")[0], trust_env=False).status_code == 404


def test_operators_grant_credits_once_for_each_request(service: FakeOurVidz, ann: Client):
    admin = service.admin_client()
    assert admin.get_credits("ann") == Credits(1000, 0)
    assert admin.grant_credits("ann", 5, request_id="r") == admin.grant_credits("ann", 5, request_id="r")
    assert ann.credits() == Credits(1005, 0)
    with pytest.raises(IdempotencyConflict):
        admin.grant_credits("ann", 6, request_id="r")
    with pytest.raises(InsufficientCredits):
        admin.grant_credits("ann", -1006)
    with pytest.raises(InvalidRequest):
        admin.grant_credits("ann", 0)
    with pytest.raises(InvalidRequest):
        admin.get_credits("")
    assert admin.grant_credits("ann", -1005).available == 0


def test_nothing_is_delivered_and_nothing_in_quarantine(service: FakeOurVidz, ann: Client):
    admin = service.admin_client()
    assert list(admin.iter_deliveries()) == list(admin.iter_quarantined()) == []
    with pytest.raises(DeliveryNotFound):
        admin.retry_delivery("d")
    with pytest.raises(JobNotFound):
        admin.release_quarantined("j")
    with pytest.raises(JobNotQuarantined):
        admin.release_quarantined(ann.create_job("image_fast", "a lighthouse").id)


def test_users_are_no_operators(service: FakeOurVidz):
    with AdminClient(service.address, service.token("ann")) as client, pytest.raises(PermissionDenied):
        client.get_credits("ann")


def parts(*given: dict) -> list[assets_pb2.UploadReferenceImageRequest]:
    return [assets_pb2.UploadReferenceImageRequest(**each) for each in given]


@pytest.mark.parametrize(
    "sent",
    [
        parts(),
        parts({"chunk": b"a"}),
        parts({"header": {}}, {"header": {}}),
        parts({"header": {}}, {"chunk": b""}),
        parts({"header": {}}, {"chunk": bytes(2**20 + 1)}),
        parts({"header": {"size_bytes": 2}}, {"chunk": b"a"}),
    ],
)
def test_an_upload_that_does_not_keep_to_the_contract_is_refused(service: FakeOurVidz, sent: list):
    with grpc.insecure_channel(service.address) as channel, pytest.raises(grpc.RpcError) as caught:
        assets_pb2_grpc.AssetServiceStub(channel).UploadReferenceImage(
            iter(sent), metadata=[("authorization", f"Bearer {service.token('ann')}")]
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
