"""A moderation endpoint on loopback that answers what a test has written down.

A request that nobody wrote an answer for is answered with 501, and answers that nobody asked for fail the test at its
end.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any


@dataclass
class ScriptedModeration:
    """`asked` are the bodies that came, `keys` the Authorization headers, `connections` who asked over which one."""

    url: str = ""
    asked: list[Any] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    connections: list[Any] = field(default_factory=list)
    closing: Event = field(default_factory=Event)
    _script: deque[tuple[int | None, bytes, dict[str, str]]] = field(default_factory=deque)

    def judge(self, flagged: bool = False, *categories: str, times: int = 1) -> None:
        """Write down a verdict; `categories` are those that hold."""
        named = {name: name in categories for name in ("sexual", "sexual/minors", "violence", *categories)}
        body = {"id": "m", "model": "scripted", "results": [{"flagged": flagged, "categories": named}]}
        for _ in range(times):
            self.answer(200, json.dumps(body).encode())

    def answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        """Write down any other answer."""
        self._script.append((status, body, headers))

    def hang_up(self) -> None:
        """Write down an answer that never comes: the connection ends."""
        self._script.append((None, b"", {}))

    def stay_silent(self) -> None:
        """Write down an answer that does not come as long as the endpoint is there."""
        self._script.append((-1, b"", {}))


@contextmanager
def moderating() -> Iterator[ScriptedModeration]:
    """Serve a script until the end of the block."""
    script = ScriptedModeration()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            script.asked.append(json.loads(body))
            script.keys.append(self.headers.get("Authorization"))
            script.connections.append(self.client_address)
            status, answer, headers = script._script.popleft() if script._script else (501, b"{}", {})
            if status == -1:
                script.closing.wait()
            if status is None or status == -1:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        script.url = f"http://127.0.0.1:{http.server_port}/v1/moderations"
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield script
        finally:
            script.closing.set()
            http.shutdown()
            thread.join()
    assert not script._script, f"nobody asked for: {list(script._script)}"
