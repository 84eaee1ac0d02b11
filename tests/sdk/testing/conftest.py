from __future__ import annotations

from collections.abc import Iterator

import pytest

from ourvidz import Client
from ourvidz.testing import FakeOurVidz


@pytest.fixture
def service() -> Iterator[FakeOurVidz]:
    with FakeOurVidz() as service:
        yield service


@pytest.fixture
def ann(service: FakeOurVidz) -> Client:
    return service.client("ann")


@pytest.fixture
def bob(service: FakeOurVidz) -> Client:
    return service.client("bob")
