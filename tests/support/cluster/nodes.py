"""One server of the cluster: a process under a fixed address, that can be killed, frozen and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

START_PATIENCE_S = 60.0
STOP_PATIENCE_S = 60.0


class Node:
    """A server that runs, or does not run just now. `ready` tells whether it answers well."""

    def __init__(
        self,
        name: str,
        module: str,
        variables: Mapping[str, str],
        log: Path,
        *,
        address: str,
        ready: Callable[[], bool],
    ) -> None:
        self.name = name
        self.address = address
        """Where its gRPC services are, the same over all starts."""
        self.variables = dict(variables)
        """Its environment; what is changed here holds from the next start on."""
        self.command = [sys.executable, "-m", module]
        """What is run; a wrapper may be put in front of it."""
        self.log = log
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process of the last start."""
        assert self._process, f"{self.name} was never started"
        return self._process

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def engine(self) -> psutil.Process:
        """A server's child, which has the model."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def launch(self) -> None:
        """Start it, without waiting until it answers."""
        assert not self.runs, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command, env=self.variables, stdout=log, stderr=log)

    def wait_ready(self) -> None:
        """Wait until it answers well; blocks."""
        deadline = time.monotonic() + START_PATIENCE_S
        while not self._ready():
            assert self.runs, f"{self.name} ended with {self.process.returncode}: {self.tail()}"
            assert time.monotonic() < deadline, f"{self.name} did not become ready: {self.tail()}"
            time.sleep(0.05)

    def start(self) -> None:
        """Start it, and wait until it answers well; blocks."""
        self.launch()
        self.wait_ready()

    def kill(self) -> None:
        """End it as a power cut does: SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Stop its time, until `thaw`."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on as if nothing had been."""
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to leave, without waiting."""
        self.process.terminate()

    def wait_ended(self) -> None:
        """Wait until it has left; it must have ended well. Blocks."""
        status = self.process.wait(STOP_PATIENCE_S)
        assert status == 0, f"{self.name} ended with {status}: {self.tail()}"

    def close(self) -> None:
        """See that it is gone, whatever state it is in."""
        if self.runs:
            self.process.kill()
            self.process.wait()

    def said(self) -> list[dict[str, Any]]:
        """What it has logged over all its starts, without what others wrote into its log."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def tail(self) -> str:
        """The end of its log, for a failed test's message."""
        return self.log.read_text()[-3000:]
