"""Fixtures that all tests can ask for, and what may run beside what."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from support.postgres import dsn, postgres
from support.s3 import s3_server

__all__ = ["dsn", "postgres", "s3_server"]


class ByFile(LoadScopeScheduling):
    """Gives a process all tests of a file, and to one process all that share the whole stack."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "stack" if file.startswith("tests/integration/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Let tests be handed out so, where several processes run them."""
    return ByFile(config, log)
