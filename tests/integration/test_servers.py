"""Servers on their own: outputs in a real S3 server, and two gateways on one database."""

from __future__ import annotations

import io
from pathlib import Path
from threading import Thread

import httpx
import pytest
from PIL import Image

from integration.servers import engine_server, gateway
from integration.waiting import first_step, steps_of, to_the_end
from ourvidz import JobEvent, JobState
from ourvidz.errors import NoRenderer


def test_pictures_go_to_s3_and_come_back_by_signed_url(s3_server, dsn: str, model_cache: Path, tmp_path: Path):
    storage = {
        "OURVIDZ_STORAGE_KIND": "s3",
        "OURVIDZ_STORAGE_ENDPOINT": s3_server.settings().endpoint,
        "OURVIDZ_STORAGE_ACCESS_KEY": s3_server.access_key,
        "OURVIDZ_STORAGE_SECRET_KEY": s3_server.secret_key,
        "OURVIDZ_STORAGE_REGION": s3_server.region,
    }
    with (
        engine_server(tmp_path, model_cache, **storage) as address,
        gateway(tmp_path, OURVIDZ_DATABASE_URL=dsn, OURVIDZ_RENDERERS_SDXL=address, **storage) as front,
        front.client("alice") as client,
    ):
        job = client.create_job("sdxl_image_fast", "a lighthouse", image_count=3, seed=11)
        assert to_the_end(client, job.id)[-1].state is JobState.COMPLETED

        for asset in client.get_job(job.id).assets:
            assert asset.url.startswith(s3_server.settings().endpoint)
            answer = httpx.get(asset.url, trust_env=False)
            assert answer.headers["content-type"] == "image/png"
            assert Image.open(io.BytesIO(answer.content)).size == (1024, 1024)
            assert httpx.get(asset.url[:-4] + "0000", trust_env=False).status_code == 403


def test_a_killed_gateways_render_goes_on_under_the_other_one(dsn: str, model_cache: Path, tmp_path: Path):
    storage = {"OURVIDZ_STORAGE_KIND": "local", "OURVIDZ_STORAGE_PATH": str(tmp_path / "objects")}
    signing = {
        "OURVIDZ_STORAGE_PUBLIC_URL": "http://127.0.0.1:8000",
        "OURVIDZ_STORAGE_SIGNING_SECRET": "a secret of the tests that signs URLs, long enough",
    }
    with engine_server(tmp_path, model_cache, **storage) as address:
        settings = {"OURVIDZ_DATABASE_URL": dsn, "OURVIDZ_RENDERERS_SDXL": address, **storage, **signing}
        with gateway(tmp_path, **settings) as first:
            with first.client("alice") as client:
                job = client.create_job("sdxl_image_high", "a lighthouse", image_count=3, seed=12)
                first_step(client, job.id)
            # It comes when the job runs already, so that it can only have it by taking it over.
            with gateway(tmp_path, **settings) as second, second.client("alice") as client:
                seen: list[JobEvent] = []
                watching = Thread(target=lambda: seen.extend(client.watch(job.id)))
                watching.start()
                first.process.kill()
                watching.join(240)
                assert not watching.is_alive()

                assert seen[-1].state is JobState.COMPLETED
                assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
                assert list(steps_of(seen)) == [(image, step) for image in range(3) for step in range(1, 41)]
                assert {event.attempt for event in seen} == {0, 1}


def test_a_type_whose_servers_are_not_configured_is_refused_and_they_are_named(dsn: str, tmp_path: Path):
    settings = {
        "OURVIDZ_DATABASE_URL": dsn,
        "OURVIDZ_RENDERERS_WAN": "127.0.0.1:9",
        "OURVIDZ_STORAGE_KIND": "local",
        "OURVIDZ_STORAGE_PATH": str(tmp_path / "objects"),
        "OURVIDZ_STORAGE_PUBLIC_URL": "http://127.0.0.1:8000",
        "OURVIDZ_STORAGE_SIGNING_SECRET": "a secret of the tests that signs URLs, long enough",
    }
    with gateway(tmp_path, **settings) as front, front.client("alice") as client:
        for job_type, missing in (("sdxl_image_fast", "sdxl renderer"), ("video7b_fast_enhanced", "enhancer")):
            with pytest.raises(NoRenderer, match=f"No {missing} is configured, so {job_type} can't be made here"):
                client.create_job(job_type, "a lighthouse")
        # A renderer that is configured and down lets its jobs wait.
        assert client.create_job("video_fast", "a lighthouse").state is JobState.QUEUED
