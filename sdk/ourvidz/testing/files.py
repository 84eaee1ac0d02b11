"""The double's object storage: files in memory, opened by their URLs over HTTP."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import quote, urlsplit

SIGNATURE = "token=fake"
"""What stands where the service's URLs carry their signature."""


class FileServer:
    """Serves files on loopback from `start` to `stop`. Safe to use from several threads."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no longer."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def put(self, key: str, data: bytes, mime_type: str) -> str:
        """Keep a file, and return the URL that opens it."""
        path = f"/objects/{quote(key)}"
        self._files[path] = (data, mime_type)
        return f"{self.url}{path}?{SIGNATURE}"

    def delete(self, url: str) -> None:
        """Delete the file that a URL opens."""
        self._files.pop(urlsplit(url).path, None)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        files = self._files

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                data, mime_type = files.get(path, (b"", "")) if query == SIGNATURE else (b"", "")
                self.send_response(200 if mime_type else 404)
                self.send_header("Content-Type", mime_type or "text/plain")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                """Say nothing: tests have their own output."""

        return Handler
