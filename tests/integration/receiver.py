"""The operator's own server: takes webhooks as the gateway calls it, and keeps what came."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATIENCE_S = 60


@dataclass
class Receiver:
    """`calls` are the verified bodies by their `webhook-id`."""

    url: str
    calls: dict[str, Any] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    """Why calls were turned away."""
    came: threading.Condition = field(default_factory=threading.Condition)

    def of_job(self, job_id: str) -> Any:
        """Wait for what is told of a job."""
        found: list[Any] = []

        def told() -> bool:
            found.extend(body for body in self.calls.values() if body["job_id"] == job_id)
            return bool(found)

        with self.came:
            assert self.came.wait_for(told, PATIENCE_S), f"no call for {job_id}; refused: {self.refused}"
        return found[0]

    def take(self, body: bytes, headers: dict[str, str]) -> bool:
        """Keep a call, if it was signed with the secret."""
        with self.came:
            try:
                Webhook(SECRET).verify(body, headers)
            except Exception as error:  # noqa: BLE001  # whatever the library finds
                self.refused.append(repr(error))
                return False
            self.calls[headers["webhook-id"]] = json.loads(body)
            self.came.notify_all()
        return True


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Take webhooks until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(204 if receiver.take(body, headers) else 400)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hooks")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
