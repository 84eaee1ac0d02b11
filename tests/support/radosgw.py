"""A one-node Ceph with its S3 gateway on loopback: the real S3 server that the storage tests run against."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

PACKAGES: Final = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common")
PROGRAMS: Final = ("radosgw", "ceph-mon", "ceph-osd", "ceph", "radosgw-admin", "monmaptool", "setpriv")
PATIENCE_S: Final = 90.0

# As little Ceph as there is: one replica, one placement group a pool, no authentication inside, objects in memory. The
# monitor decides at once (paxos …) instead of gathering changes for a second: the start takes 1 s, not 12.
CONFIGURATION: Final = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = v1:127.0.0.1:{monitor_port}
ms bind msgr2 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
setuser match path = /
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
pid file = {folder}/run/$name.pid
log file = {folder}/log/$name.log
mon data = {folder}/mon
paxos propose interval = 0.02
paxos min wait = 0.02
mon data avail warn = 2
mon data avail crit = 1
mon allow pool size one = true
mon warn on pool no redundancy = false
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw rados pool pg num min = 1
rgw run sync thread = false
rgw thread pool size = 32
"""


class RadosGateway:
    """A running server; a context manager that stops it and removes all that it wrote.

    Starting takes about a second. Raises `RuntimeError`, with the end of the logs, when it does not come up.
    """

    def __init__(self) -> None:
        self.port = _free_port()
        self.access_key = "test-access"
        self.secret_key = uuid.uuid4().hex
        self._folder = Path(tempfile.mkdtemp(prefix="radosgw-"))
        self._servers: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def missing() -> list[str]:
        """Return the programs that this machine lacks; empty when a server can be started."""
        return [program for program in PROGRAMS if shutil.which(program) is None]

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        for name in ("run", "log", "mon", "osd"):
            (self._folder / name).mkdir()
        monitor_port, fsid = _free_port(), str(uuid.uuid4())
        (self._folder / "ceph.conf").write_text(
            CONFIGURATION.format(fsid=fsid, folder=self._folder, port=self.port, monitor_port=monitor_port)
        )
        address = f"[v1:127.0.0.1:{monitor_port}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, "monmap")
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap")
        self._serve("ceph-mon", "-i", "a", "-f")
        osd = str(uuid.uuid4())
        self._run("ceph", "osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._serve_osd()
        self._serve("radosgw", "-n", "client.rgw", "-f")
        self._until("the gateway answers", self._answers)
        user = (
            "--uid=test",
            "--display-name=test",
            f"--access-key={self.access_key}",
            f"--secret-key={self.secret_key}",
        )
        self._run("radosgw-admin", "user", "create", *user)

    def stop(self) -> None:
        """Stop all servers, the gateway first, and remove their folder. Idempotent."""
        for server in reversed(self._servers):
            # Nothing here outlives the tests, so there is nothing to shut down in order.
            server.kill()
            server.wait()
        self._servers.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve_osd(self) -> None:
        """Start the object daemon; again when it asked for the monitors' map too early and left."""
        server = self._serve("ceph-osd", "-i", "0", "-f")

        def up() -> bool:
            nonlocal server
            if server.poll() is not None:
                self._servers.remove(server)
                server = self._serve("ceph-osd", "-i", "0", "-f")
            # A monitor that is still finding its feet refuses the question.
            with contextlib.suppress(RuntimeError):
                return "1 up" in self._run("ceph", "osd", "stat")
            return False

        self._until("the object daemon is up", up)

    def _answers(self) -> bool:
        try:
            urlopen(self.endpoint, timeout=2).close()
        except HTTPError as answer:
            answer.close()
        except (URLError, OSError):
            return False
        return True

    def _until(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise RuntimeError(f"radosgw: waited {PATIENCE_S:.0f} s until {what}\n{self._logs()}")
            time.sleep(0.1)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self._folder / "ceph.conf")}

    def _serve(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log" / f"{command[0]}.out").open("ab") as output:
            server = subprocess.Popen(
                # Killed with us, should we be killed before we can stop it.
                ("setpriv", "--pdeathsig", "KILL", *command),
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C is for the test run, which then stops us.
                start_new_session=True,
            )
        self._servers.append(server)
        return server

    def _run(self, *command: str) -> str:
        try:
            done = subprocess.run(
                command,
                cwd=self._folder,
                env=self._environment(),
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"{' '.join(command)}: {error.stderr}\n{self._logs()}") from error
        return done.stdout

    def _logs(self) -> str:
        tails = [f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in self._folder.glob("log/*.out")]
        return "\n".join(tails)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
