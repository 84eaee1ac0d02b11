"""Prints each job that ends, as webhooks tell it: `SECRET=$(ourvidz webhooks secret) python examples/receive_webhooks.py`.

Start the service with `OURVIDZ_WEBHOOK_URL=http://127.0.0.1:8080 ourvidz up`. Needs `pip install standardwebhooks`.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["SECRET"])


class Receiver(BaseHTTPRequestHandler):
    """Takes what is signed with the secret, and answers in time: whatever is slow belongs elsewhere."""

    def do_POST(self) -> None:
        """Check one webhook. The same `webhook-id` may come again, where our answer was lost."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            told = webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except WebhookVerificationError:
            return self.send_error(401)
        print(self.headers["webhook-id"], told["job_id"], told["status"], *told["assets"], flush=True)
        self.send_response(204)
        return self.end_headers()


HTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8080), Receiver).serve_forever()
