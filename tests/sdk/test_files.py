from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ourvidz import Asset, Client, ReferenceImage
from ourvidz.api.assets.v1 import assets_pb2
from ourvidz.errors import AssetNotFound, FileTooLarge, ReferenceImageNotFound, Unreachable
from support.scripted_jobs import Failure, ScriptedJobs, job

JOB = job().id


def test_a_file_is_uploaded_in_chunks_after_its_header(service: ScriptedJobs, client: Client, tmp_path: Path):
    picture = assets_pb2.ReferenceImage(id="r", url="/r", mime_type="image/png", size_bytes=9, width_px=8, height_px=7)
    service.answer("UploadReferenceImage", assets_pb2.UploadReferenceImageResponse(reference_image=picture))
    data = bytes(range(256)) * 2500
    (tmp_path / "fox.png").write_bytes(data)
    uploaded = client.upload_reference(tmp_path / "fox.png")
    assert (uploaded.id, uploaded.url, uploaded.width_px, uploaded.height_px) == ("r", "/r", 8, 7)
    ((header, *chunks),) = service.requests("UploadReferenceImage")
    assert (header.header.filename, header.header.size_bytes) == ("fox.png", len(data))
    assert len(chunks) > 1
    assert b"".join(chunk.chunk for chunk in chunks) == data


def test_a_file_that_is_refused_says_why(service: ScriptedJobs, client: Client, tmp_path: Path):
    service.answer(
        "UploadReferenceImage", Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large", reason="FILE_TOO_LARGE")
    )
    (tmp_path / "fox.png").write_bytes(b"fox")
    with pytest.raises(FileTooLarge, match="too large"):
        client.upload_reference(tmp_path / "fox.png")


def test_bytes_are_uploaded_as_a_file_is(service: ScriptedJobs, client: Client):
    service.answer("UploadReferenceImage", assets_pb2.UploadReferenceImageResponse())
    client.upload_reference(b"fox", filename="fox.png")
    ((header, chunk),) = service.requests("UploadReferenceImage")
    assert (header.header.filename, header.header.size_bytes, chunk.chunk) == ("fox.png", 3, b"fox")


def test_an_upload_is_not_repeated(service: ScriptedJobs, client: Client):
    service.answer("UploadReferenceImage", Failure(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(Unreachable):
        client.upload_reference(b"fox")
    assert len(service.calls) == 1


def test_uploaded_pictures_are_listed_with_all_that_is_known(service: ScriptedJobs, client: Client):
    message = assets_pb2.ReferenceImage(
        id="r", url="/r", filename="fox.png", mime_type="image/png", size_bytes=9, width_px=8, height_px=7
    )
    message.url_expire_time.FromSeconds(1_800_000_000)
    message.create_time.FromSeconds(1_700_000_000)
    answer = assets_pb2.ListReferenceImagesResponse(reference_images=[message], next_page_token="n")
    service.answer("ListReferenceImages", answer)
    page = client.list_reference_images(page_size=1, page_token="t")
    expires, created = (datetime.fromtimestamp(seconds, UTC) for seconds in (1_800_000_000, 1_700_000_000))
    assert page.items == (ReferenceImage("r", "/r", expires, "fox.png", "image/png", 9, 8, 7, created),)
    assert page.next_page_token == "n"
    (request,) = service.requests("ListReferenceImages")
    assert (request.page_size, request.page_token) == (1, "t")


def test_all_uploaded_pictures_are_listed_page_after_page(service: ScriptedJobs, client: Client):
    for name, token in (("a", "t"), ("b", "")):
        image = assets_pb2.ReferenceImage(id=name)
        answer = assets_pb2.ListReferenceImagesResponse(reference_images=[image], next_page_token=token)
        service.answer("ListReferenceImages", answer)
    assert [image.id for image in client.iter_reference_images()] == ["a", "b"]


def test_an_uploaded_picture_is_deleted(service: ScriptedJobs, client: Client):
    service.answer("DeleteReferenceImage", assets_pb2.DeleteReferenceImageResponse())
    service.answer("DeleteReferenceImage", Failure(grpc.StatusCode.NOT_FOUND, "none", "REFERENCE_IMAGE_NOT_FOUND"))
    assert client.delete_reference_image("r") is None
    with pytest.raises(ReferenceImageNotFound):
        client.delete_reference_image("r")
    assert [request.reference_image_id for request in service.requests("DeleteReferenceImage")] == ["r", "r"]


def test_assets_are_listed_with_all_that_is_known(service: ScriptedJobs, client: Client):
    message = assets_pb2.Asset(
        id="a", job_id=JOB, job_type="video_fast", output_index=2, url="/x", mime_type="video/mp4", size_bytes=5,
        width_px=480, height_px=832, duration=Duration(seconds=5), seed=0, project_id="p",
    )  # fmt: skip
    message.url_expire_time.FromSeconds(1_800_000_000)
    message.create_time.FromSeconds(1_700_000_000)
    service.answer("ListAssets", assets_pb2.ListAssetsResponse(assets=[message]))
    page = client.list_assets(job_type="video_fast", project_id="p")
    expires, created = (datetime.fromtimestamp(seconds, UTC) for seconds in (1_800_000_000, 1_700_000_000))
    assert page.items == (
        Asset("a", JOB, "video_fast", 2, "/x", expires, "video/mp4", 5, 480, 832, 0, 5.0, "p", created),
    )
    (request,) = service.requests("ListAssets")
    assert (request.page_size, request.job_type, request.project_id) == (20, "video_fast", "p")


def test_all_assets_are_listed_page_after_page(service: ScriptedJobs, client: Client):
    for name, token in (("a", "t"), ("b", "")):
        answer = assets_pb2.ListAssetsResponse(assets=[assets_pb2.Asset(id=name)], next_page_token=token)
        service.answer("ListAssets", answer)
    assert [(asset.id, asset.seed) for asset in client.iter_assets(project_id="p")] == [("a", None), ("b", None)]
    assert [request.project_id for request in service.requests("ListAssets")] == ["p", "p"]


def test_an_asset_is_deleted(service: ScriptedJobs, client: Client):
    service.answer("DeleteAsset", assets_pb2.DeleteAssetResponse())
    service.answer("DeleteAsset", Failure(grpc.StatusCode.NOT_FOUND, "none", "ASSET_NOT_FOUND"))
    assert client.delete_asset("a") is None
    with pytest.raises(AssetNotFound):
        client.delete_asset("a")
    assert [request.asset_id for request in service.requests("DeleteAsset")] == ["a", "a"]


def test_a_delete_is_not_repeated(service: ScriptedJobs, client: Client):
    for method, call in (("DeleteAsset", client.delete_asset), ("DeleteReferenceImage", client.delete_reference_image)):
        service.answer(method, Failure(grpc.StatusCode.UNAVAILABLE))
        with pytest.raises(Unreachable):
            call("a")
        assert len(service.requests(method)) == 1
