"""The S3 server that tests share: one that the environment names, or a radosgw that we start."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ourvidz_serving.storage import StorageSettings
from support.radosgw import PACKAGES, RadosGateway

ENVIRONMENT = ("OURVIDZ_TEST_S3_ENDPOINT", "OURVIDZ_TEST_S3_ACCESS_KEY", "OURVIDZ_TEST_S3_SECRET_KEY")


@dataclass(frozen=True)
class S3Server:
    """Where a real S3 server is, and an account that may do everything there."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def settings(self, **changes: object) -> StorageSettings:
        """Return the settings of a store on this server, with some of them changed."""
        account = {"endpoint": self.endpoint, "access_key": self.access_key, "secret_key": self.secret_key}
        return StorageSettings(**{"kind": "s3", "region": self.region, **account, **changes})


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Yield a running server; skip where none is named and none can be started."""
    if os.environ.get(ENVIRONMENT[0]):
        endpoint, access_key, secret_key = (os.environ[name] for name in ENVIRONMENT)
        yield S3Server(endpoint, access_key, secret_key, os.environ.get("OURVIDZ_TEST_S3_REGION", "us-east-1"))
        return
    if RadosGateway.missing():
        pytest.skip(f"S3: name a server in {ENVIRONMENT[0]}, or: apt-get install {' '.join(PACKAGES)}")
    with RadosGateway() as server:
        yield S3Server(server.endpoint, server.access_key, server.secret_key)
