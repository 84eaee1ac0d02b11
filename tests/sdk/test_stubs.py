"""The generated stubs stand by themselves: they import, and bring no server's library with them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import ourvidz

STUBS = Path(ourvidz.__file__).parent / "api"

SERVICES = {
    "ourvidz.api.admin.v1.admin": "AdminService",
    "ourvidz.api.assets.v1.assets": "AssetService",
    "ourvidz.api.enhance.v1.enhance": "EnhanceService",
    "ourvidz.api.jobs.v1.jobs": "JobService",
    "ourvidz.api.render.v1.render": "RenderService",
}


@pytest.mark.parametrize(("module", "service"), SERVICES.items())
def test_each_service_has_messages_a_stub_and_a_servicer(module: str, service: str) -> None:
    messages = importlib.import_module(f"{module}_pb2")
    calls = importlib.import_module(f"{module}_pb2_grpc")
    described = messages.DESCRIPTOR.services_by_name[service]
    assert described.full_name == f"{module.rpartition('.')[0]}.{service}"
    servicer = getattr(calls, f"{service}Servicer")
    assert all(callable(getattr(servicer, method.name)) for method in described.methods)
    assert hasattr(calls, f"{service}Stub")
    assert hasattr(calls, f"add_{service}Servicer_to_server")


def test_every_contract_is_listed_above() -> None:
    modules = {
        ".".join(("ourvidz", "api", *path.relative_to(STUBS).with_suffix("").parts)).removesuffix("_pb2")
        for path in STUBS.rglob("*_pb2.py")
    }
    assert modules == set(SERVICES)


def test_comments_of_the_contracts_are_docstrings_of_the_types() -> None:
    assert "the job is durable" in (STUBS / "jobs" / "v1" / "jobs_pb2_grpc.pyi").read_text()
    assert "Denoising steps. Range: 1 to 200." in (STUBS / "render" / "v1" / "render_pb2.pyi").read_text()


def test_stubs_bring_no_server_library_along() -> None:
    imports = "; ".join(f"import {module}_pb2_grpc" for module in SERVICES)
    heavy = {"torch", "fastapi", "asyncpg", "minio", "pydantic", "structlog", "diffusers"}
    program = f"import sys; {imports}; print(sorted({heavy!r} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
