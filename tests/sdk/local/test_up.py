"""`ourvidz up` as a program: the database is real, the other servers are stand-ins that start at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from typer.testing import CliRunner

from ourvidz.cli import app
from ourvidz.local.engine_servers import EngineServer
from ourvidz.local.folder import DataFolder
from ourvidz.local.secrets import Secrets
from ourvidz_gateway.jobs import Kind
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_sdxl.settings import SdxlSettings
from ourvidz_serving.storage import StorageSettings

GATEWAY = """
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        given = {name: value for name, value in os.environ.items() if name.startswith("OURVIDZ_")}
        self.wfile.write(json.dumps({"pid": os.getpid(), "environment": given}).encode())

HTTPServer((os.environ["OURVIDZ_REST_HOST"], int(os.environ["OURVIDZ_REST_PORT"])), Ready).serve_forever()
"""

RENDERER = """
import os
from concurrent.futures import ThreadPoolExecutor
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

server = grpc.server(ThreadPoolExecutor())
servicer = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
servicer.set("", health_pb2.HealthCheckResponse.SERVING)
prefix = f"{__spec__.parent.upper()}_GRPC_"
server.add_insecure_port(f"{os.environ[prefix + 'HOST']}:{os.environ[prefix + 'PORT']}")
server.start()
server.wait_for_termination()
"""

BAD_SETTINGS = "import os, sys; print('OURVIDZ_X is missing', file=sys.stderr, flush=True); os._exit(2)"


class Up:
    """A running `ourvidz up`."""

    def __init__(
        self, folder: DataFolder, servers: Path, ports: tuple[int, int], *arguments: str, **environment: str
    ) -> None:
        self.url = f"http://127.0.0.1:{ports[0]}"
        self.data_dir = folder.path
        options = ["--data-dir", str(folder.path), "--rest-port", str(ports[0]), "--grpc-port", str(ports[1])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ourvidz.cli", "up", *options, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(servers), **environment},
        )
        self.lines: list[str] = []
        self.children: list[psutil.Process] = []

    def wait_until_it_says(self, words: str) -> None:
        assert self.process.stdout
        while not self.lines or words not in self.lines[-1]:
            self.lines.append(self.process.stdout.readline())
            assert self.lines[-1], self.process.communicate()[1]
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def gateway(self) -> dict:
        with urlopen(f"{self.url}/readyz", timeout=30) as answer:
            return json.load(answer)

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        self.lines += self.process.communicate(timeout=90)[0].splitlines(keepends=True)
        return self.process.returncode


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    folder = DataFolder(tmp_path / "data")
    yield folder
    postgres = folder.path / "postgres"
    if postgres.is_symlink():  # root's databases lie elsewhere
        shutil.rmtree(postgres.readlink(), ignore_errors=True)


@pytest.fixture
def servers(tmp_path: Path) -> Path:
    """The folder of the stand-ins, which come before the real servers on the path."""
    engine_servers = {f"ourvidz_{name}": RENDERER for name in EngineServer}
    for name, program in {"ourvidz_gateway": GATEWAY, **engine_servers}.items():
        package = tmp_path / "servers" / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(program)
    return tmp_path / "servers"


@pytest.fixture
def ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


@pytest.fixture
def up(folder: DataFolder, servers: Path, ports: tuple[int, int]) -> Iterator[Callable[..., Up]]:
    with ExitStack() as running:

        def start(*arguments: str, **environment: str) -> Up:
            up = Up(folder, servers, ports, *arguments, **environment)
            running.enter_context(up.process)
            running.callback(lambda: up.process.poll() is None and up.end())
            return up

        yield start


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def postmaster(folder: DataFolder) -> psutil.Process:
    return psutil.Process(int((folder.path / "postgres" / "postmaster.pid").read_text().split()[0]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_and_leaves_nothing_behind(up: Callable[..., Up], folder: DataFolder, number: int):
    stack = up()
    stack.wait_until_it_says("Ctrl-C stops everything")
    started = [*stack.children, postmaster(folder)]
    assert len(alive(started)) >= 4
    assert stack.end(number) == 0
    assert stack.lines[-1] == "Stopped.\n"
    assert alive(started) == []


def test_it_prints_a_curl_line_and_settings_on_one_line_each(up: Callable[..., Up], folder: DataFolder):
    stack = up(COLUMNS="40")
    stack.wait_until_it_says("Ctrl-C stops everything")
    (curl,) = [line for line in stack.lines if line.startswith("curl")]
    assert curl.startswith(f'curl -s {stack.url}/api/queue-job -H "Authorization: Bearer $(')
    assert f"token demo --data-dir {folder.path})" in curl
    (settings,) = [line for line in stack.lines if line.startswith("export")]
    assert f"OURVIDZ_URL={stack.url}" in settings
    assert subprocess.run(["bash", "-n"], input=curl + settings, text=True, check=True).returncode == 0


def test_the_gateway_and_its_storage_accept_what_they_are_told(
    up: Callable[..., Up], folder: DataFolder, monkeypatch: pytest.MonkeyPatch
):
    stack = up(OURVIDZ_JWKS_URL="https://login.example.com/keys")
    stack.wait_until_it_says("Ctrl-C stops everything")
    for name, value in stack.gateway()["environment"].items():
        monkeypatch.setenv(name, value)
    settings, storage, keys = GatewaySettings(), StorageSettings(), Secrets.read(folder)
    assert settings.jwt_secret
    assert settings.jwt_secret.get_secret_value() == keys.jwt
    assert [len(settings.renderers[kind]) for kind in (Kind.SDXL, Kind.WAN, Kind.ENHANCER)] == [1, 1, 1]
    assert f"http://127.0.0.1:{settings.rest_port}" == stack.url == storage.public_url
    assert (storage.kind, storage.path) == ("local", folder.objects)
    assert str(postmaster(folder).cwd()) in settings.database_url.get_secret_value()
    assert settings.credits_grant == 1000
    assert settings.webhook_secret
    assert settings.webhook_secret.get_secret_value() == keys.webhook
    assert settings.webhook_url is None


def test_the_callers_own_settings_reach_the_gateway(up: Callable[..., Up]):
    own = {
        "OURVIDZ_CREDITS_GRANT": "7",
        "OURVIDZ_CORS_ORIGINS": "https://app.example.com",
        "OURVIDZ_WEBHOOK_URL": "https://app.example.com/hooks",
        "OURVIDZ_WEBHOOK_SECRET": f"whsec_{'a' * 40}",
    }
    stack = up(**own)
    stack.wait_until_it_says("Ctrl-C stops everything")
    told = stack.gateway()["environment"]
    assert {name: told[name] for name in own} == own
    assert any(line.rstrip().endswith(f"webhooks secret --data-dir {stack.data_dir}") for line in stack.lines)


def test_the_renderer_accepts_what_it_is_told_and_can_sign_nothing(
    up: Callable[..., Up], folder: DataFolder, monkeypatch: pytest.MonkeyPatch
):
    stack = up()
    stack.wait_until_it_says("Ctrl-C stops everything")
    (renderer,) = [child for child in stack.children if "ourvidz_sdxl" in child.cmdline()]
    told = renderer.environ()
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings, storage, keys = SdxlSettings(), StorageSettings(), Secrets.read(folder)
    assert f"127.0.0.1:{settings.grpc_port}" == stack.gateway()["environment"]["OURVIDZ_RENDERERS_SDXL"]
    assert settings.model == "miniature"
    assert storage.path == folder.objects
    assert not {keys.jwt, keys.url_signing} & set(told.values())


def test_only_the_servers_asked_for_run_and_the_gateway_knows_no_others(up: Callable[..., Up]):
    stack = up("--only", "sdxl", "--only", "enhancer", OURVIDZ_RENDERERS_WAN="10.0.0.5:50062")
    stack.wait_until_it_says("Ctrl-C stops everything")
    run = {word for child in stack.children for word in child.cmdline() if word.startswith("ourvidz_")}
    assert run == {"ourvidz_gateway", "ourvidz_sdxl", "ourvidz_enhancer"}
    assert [line for line in stack.lines if " generate " in line and "video" in line] == []
    told = stack.gateway()["environment"]
    assert told["OURVIDZ_RENDERERS_SDXL"].startswith("127.0.0.1:")
    assert told["OURVIDZ_RENDERERS_WAN"] == ""


def test_a_server_that_dies_is_started_again(up: Callable[..., Up]):
    stack = up()
    stack.wait_until_it_says("Ctrl-C stops everything")
    first = stack.gateway()["pid"]
    os.kill(first, signal.SIGKILL)
    stack.wait_until_it_says("gateway was ended by SIGKILL; starting it again")
    stack.wait_until_it_says("gateway is healthy again")
    assert stack.gateway()["pid"] != first


def test_a_second_stack_on_the_same_folder_is_refused_in_one_line(up: Callable[..., Up], folder: DataFolder):
    up().wait_until_it_says("Ctrl-C stops everything")
    result = CliRunner().invoke(app, ["up", "--data-dir", str(folder.path)])
    assert (result.exit_code, result.stderr) == (1, f"Error: A stack runs on {folder.path} already\n")


def test_a_stack_that_was_killed_can_be_started_again(up: Callable[..., Up], folder: DataFolder):
    killed = up()
    killed.wait_until_it_says("Ctrl-C stops everything")
    secrets = Secrets.read(folder)
    started = [*killed.children, postmaster(folder)]
    killed.process.kill()
    killed.process.wait()
    assert psutil.wait_procs(started, timeout=60)[1] == []
    again = up()
    again.wait_until_it_says("Ctrl-C stops everything")
    assert Secrets.read(folder) == secrets
    assert again.end() == 0


def test_wrong_settings_of_a_server_end_it_with_the_servers_own_words(up: Callable[..., Up], servers: Path):
    (servers / "ourvidz_gateway" / "__main__.py").write_text(BAD_SETTINGS)
    stack = up()
    _, stderr = stack.process.communicate(timeout=90)
    assert stack.process.returncode == 1
    assert stderr.startswith("Error: gateway can't start: see ")
    assert stderr.endswith("OURVIDZ_X is missing\n")


def test_a_taken_port_is_named_before_anything_is_started(folder: DataFolder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["up", "--data-dir", str(folder.path), "--rest-port", str(port)])
    assert result.exit_code == 1
    assert f"Port {port} can't be used (Address already in use); choose another --rest-port" in result.stderr
    assert not (folder.path / "postgres").exists()


def test_a_missing_part_says_what_to_install(folder: DataFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ourvidz.local.stack.NEEDED", {"no_such_module": "sdxl"})
    result = CliRunner().invoke(app, ["up", "--data-dir", str(folder.path)])
    assert result.exit_code == 1
    assert "Parts of the local stack are not installed: pip install 'ourvidz[sdxl]'" in result.stderr
