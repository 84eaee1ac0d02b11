"""What the servers' logs never say."""

import subprocess
import sys

CALL = """
import logging
import httpx
from ourvidz_serving import logs

logs.configure("debug", "json")
with httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(204))) as client:
    client.post("https://hooks.example.com/?key=of-a-user")
logging.getLogger("httpcore.http11").debug("send_request_headers %s", "of-a-user")
logging.getLogger("ourvidz").info("sent")
"""


def test_a_url_that_is_called_is_not_logged_though_all_else_is():
    done = subprocess.run([sys.executable, "-c", CALL], capture_output=True, text=True, check=True, timeout=60)

    assert '"event": "sent"' in done.stderr
    assert "of-a-user" not in done.stderr
