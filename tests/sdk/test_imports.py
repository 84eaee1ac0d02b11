from __future__ import annotations

import subprocess
import sys

import pytest

SERVERS_LIBRARIES = {"torch", "fastapi", "asyncpg", "minio", "pydantic", "sqlalchemy", "structlog", "numpy", "psutil"}
CLIENTS_LIBRARIES = {"grpc", "httpx", "google.protobuf", "jwt"}

ALL = """
import importlib, pkgutil, ourvidz
for module in pkgutil.walk_packages(ourvidz.__path__, "ourvidz."):
    # Programs: importing them runs them.
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def imported_by(statements: str) -> set[str]:
    program = f"{statements}\nimport sys\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    )


@pytest.mark.parametrize("module", ["ourvidz", "ourvidz.errors", "ourvidz.cli"])
def test_importing_is_light(module: str):
    assert not imported_by(f"import {module}") & (SERVERS_LIBRARIES | CLIENTS_LIBRARIES)


def test_no_module_of_the_client_needs_what_servers_need():
    modules = imported_by(ALL)
    assert "ourvidz.local.stack" in modules
    assert not modules & SERVERS_LIBRARIES


def test_names_are_loaded_when_they_are_first_used():
    modules = imported_by("from ourvidz import Client, Job, OurVidzError")
    assert {"ourvidz.client", "grpc"} <= modules


def test_an_unknown_name_is_an_attribute_error():
    import ourvidz

    with pytest.raises(AttributeError, match="nothing"):
        _ = ourvidz.nothing
