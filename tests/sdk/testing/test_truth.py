"""What the double says of the service is so."""

from __future__ import annotations

import inspect
import subprocess
import sys
from io import BytesIO
from textwrap import dedent

import av
import grpc
import pytest
from PIL import Image

import ourvidz.testing
from ourvidz import Client, rpc_status
from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz.errors import BY_REASON, JobFailed
from ourvidz.testing import FakeOurVidz, pictures
from ourvidz.testing.catalog import JOB_TYPES
from ourvidz.testing.refusals import code_of
from ourvidz_gateway.catalog import load_catalog
from ourvidz_gateway.errors import GatewayError
from support.bad_requests import BAD_REQUESTS, OURS, BadRequest


def test_its_job_types_are_those_of_the_catalog_as_shipped():
    told = {
        name: (
            job_type.queue,
            job_type.model_variant,
            job_type.bucket,
            job_type.width_px,
            job_type.height_px,
            job_type.image_counts,
            job_type.enhanced,
            job_type.duration_s,
            job_type.takes_reference,
            job_type.takes_frames,
            job_type.price,
        )
        for name, job_type in JOB_TYPES.items()
    }
    true = {
        name: (
            job_type.kind.queue,
            job_type.model_variant,
            job_type.bucket,
            job_type.recipe.width_px,
            job_type.recipe.height_px,
            job_type.image_counts,
            job_type.enhanced,
            job_type.recipe.duration_s,
            job_type.supports_reference,
            job_type.supports_frames,
            job_type.price,
        )
        for name, job_type in load_catalog(None).job_types.items()
    }
    assert told == true


def test_its_errors_have_the_statuses_of_the_gateway():
    kinds = [GatewayError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    true = {(kind.reason, kind.grpc_status) for kind in kinds[1:] if kind.reason != "INVALID_REQUEST"}
    assert {(reason, code_of(BY_REASON[reason])) for reason, _ in true} == true
    assert code_of(BY_REASON["INVALID_REQUEST"]) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("bad", [bad for bad in BAD_REQUESTS if bad.rpc is not None], ids=lambda bad: bad.name)
def test_it_refuses_what_the_gateway_refuses_in_the_same_words(service: FakeOurVidz, bad: BadRequest):
    fields = {
        name: value.replace(OURS, service.url) if isinstance(value, str) else value for name, value in bad.rpc.items()
    }
    with grpc.insecure_channel(service.address) as channel, pytest.raises(grpc.RpcError) as caught:
        jobs_pb2_grpc.JobServiceStub(channel).CreateJob(
            jobs_pb2.CreateJobRequest(**fields), metadata=[("authorization", f"Bearer {service.token('ann')}")]
        )
    error = rpc_status.parse(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, bad.reason)
    assert [violation.field for violation in error.fields] == [bad.rpc_field]
    assert bad.says in error.message
    assert service.jobs == []
    assert service.credits_of("ann").reserved == 0


@pytest.mark.parametrize(("width_px", "height_px"), [(1024, 1024), (480, 832), (7, 5)])
def test_its_pictures_are_real_and_differ_by_seed(width_px: int, height_px: int):
    first, second = (pictures.png(width_px, height_px, seed) for seed in (7, 8))
    assert first != second
    for data in (first, second):
        with Image.open(BytesIO(data)) as picture:
            picture.load()
            assert picture.size == (width_px, height_px)


def test_its_clip_is_real():
    with av.open(BytesIO(pictures.clip())) as container:
        (stream,) = container.streams
        frames = sum(1 for _ in container.decode(stream))
        assert (stream.width, stream.height, frames) == (480, 832, 83)
        assert float(stream.duration * stream.time_base) == 5.0


def test_its_preview_is_a_jpeg():
    with Image.open(BytesIO(pictures.preview())) as picture:
        picture.load()
        assert picture.format == "JPEG"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": Image.Exif()}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0"}),
    ],
)
def test_it_reads_the_size_of_what_is_brought(kind: str, options: dict):
    file = BytesIO()
    Image.effect_noise((301, 200), 80).convert("RGB").save(file, kind, **options)
    assert pictures.describe(file.getvalue()) == (f"image/{kind.lower()}", 301, 200)


@pytest.mark.parametrize("data", [b"", b"fox", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF0000WEBPVP8 ", b"GIF89a"])
def test_what_is_no_picture_has_no_size(data: bytes):
    assert pictures.describe(data) is None


def test_its_example_works():
    lines = inspect.getdoc(ourvidz.testing).splitlines()
    code = dedent("\n".join(line for line in lines if line.startswith("    ")))
    assert len(code.splitlines()) <= 12
    names: dict = {"JobFailed": JobFailed}
    exec(code, names)
    names["test_a_failed_picture_is_told"]()


def test_it_needs_nothing_that_servers_need():
    program = """
from ourvidz.testing import FakeOurVidz
with FakeOurVidz() as service:
    assert service.client().generate("video_fast", "a walk").result().assets
import sys
assert not {"torch", "asyncpg", "fastapi", "pydantic", "PIL", "av", "numpy"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_client_finds_it_by_the_environment(service: FakeOurVidz, monkeypatch: pytest.MonkeyPatch):
    for name, value in service.environment("ann").items():
        monkeypatch.setenv(name, value)
    with Client.from_environment() as client:
        assert client.create_job("image_fast", "a lighthouse").user_id == "ann"
