"""Tests a program of your own without a service: `python -m pytest examples/own_tests.py`."""

from pathlib import Path

import pytest

from ourvidz import Client, JobFailed
from ourvidz.testing import FakeOurVidz


def poster(client: Client, title: str, folder: Path) -> Path:
    """Stand for your program: make a poster, and try once more where that fails."""
    try:
        job = client.generate("sdxl_image_high", f"a poster for {title}").result()
    except JobFailed:
        job = client.generate("sdxl_image_fast", f"a poster for {title}").result()
    client.download(job.assets[0], folder / "poster.png")
    return folder / "poster.png"


@pytest.mark.parametrize("failures", [0, 1])
def test_a_poster_is_made_also_where_the_first_try_fails(failures: int, tmp_path: Path) -> None:
    """Let the service fail, and look at what it was asked for."""
    with FakeOurVidz() as service:
        for _ in range(failures):
            service.fail_next("The renderer ran out of memory.")
        assert poster(service.client(), "Vertigo", tmp_path).read_bytes().startswith(b"\x89PNG")
        assert len(service.requests("CreateJob")) == 1 + failures
