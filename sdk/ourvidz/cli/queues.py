"""How full the queues are."""

from __future__ import annotations

from ourvidz.cli.lists import show_json, show_list
from ourvidz.client import Client

COLUMNS = ("queue", "waiting", "running", "oldest", "renderers")


def show_queues(*, as_json: bool) -> None:
    """Print a line for each queue."""
    with Client.from_environment() as client:
        status = client.queue_status()
    if as_json:
        queues = {
            queue.name: {
                "depth": queue.depth,
                "running": queue.running,
                "oldestSeconds": queue.oldest_wait_s,
                "renderers": queue.renderer_count,
            }
            for queue in status.queues
        }
        show_json({"queueDepth": status.depth, "queues": queues})
        return
    rows = [
        (
            queue.name,
            str(queue.depth),
            str(queue.running),
            "" if queue.oldest_wait_s is None else f"{queue.oldest_wait_s:.0f} s",
            str(queue.renderer_count),
        )
        for queue in status.queues
    ]
    show_list(COLUMNS, rows)
