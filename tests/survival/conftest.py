"""Clusters that are broken on purpose; each file of tests has one of its own, and each test leaves it whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.cluster.cluster import Cluster, running_cluster
from support.postgres import Postgres


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Cluster]:
    """Two gateways, two SDXL renderers, a WAN renderer and an enhancer on a database of their own."""
    with postgres.database() as dsn, running_cluster(tmp_path_factory.mktemp("cluster"), dsn) as cluster:
        yield cluster


@pytest.fixture
async def cluster(shared_cluster: Cluster) -> Cluster:
    """The cluster with all its servers running. Jobs of earlier tests have ended."""
    await shared_cluster.restore()
    return shared_cluster
