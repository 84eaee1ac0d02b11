"""The `curl` program, as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 60


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


def curl(url: str, *options: str, token: str | None = None) -> Answer:
    """Send one request and wait for the whole answer."""
    command = [*_command(url, token), "--write-out", "\n%{http_code}", *options]
    body, _, status = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S).stdout.rpartition(
        b"\n"
    )
    return Answer(int(status), body)


def post(url: str, body: dict[str, Any], *, token: str | None, content_type: str = "application/json") -> Answer:
    """Post JSON."""
    return curl(url, "--header", f"Content-Type: {content_type}", "--data", json.dumps(body), token=token)


def download(url: str, path: Path) -> Path:
    """Fetch a file to `path`; the URL must open without a token."""
    assert curl(url, "--output", str(path)).status == 200
    return path


class EventStream:
    """A stream of Server-Sent Events that is being read."""

    def __init__(self, url: str, *, token: str, after: int | None = None) -> None:
        resume = [] if after is None else ["--header", f"Last-Event-ID: {after}"]
        self._curl = subprocess.Popen([*_command(url, token), "--no-buffer", *resume], stdout=subprocess.PIPE)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each event's `id` and `event`, and its data, until the server ends the stream."""
        assert self._curl.stdout
        with self._curl:
            event: dict[str, Any] = {}
            for line in self._curl.stdout:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "data":
                    event |= json.loads(value)
                elif name:
                    event[name] = value
                elif event:
                    yield event
                    event = {}
        assert self._curl.returncode == 0

    def hang_up(self) -> None:
        """Leave in the middle."""
        self._curl.kill()
        self._curl.wait()


def _command(url: str, token: str | None) -> list[str]:
    authorization = ["--header", f"Authorization: Bearer {token}"] if token else []
    return ["curl", "--silent", "--show-error", "--noproxy", "*", *authorization, url]
