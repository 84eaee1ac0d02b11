"""Waiting for what other processes do, each time with a deadline, and the ports they are given."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from ourvidz import Client, JobEvent

Found = TypeVar("Found")

LOOK_EVERY_S = 0.05


def until(look: Callable[[], Found | None], patience_s: float = 30) -> Found:
    """Look again and again until something is found, and return it; fail once patience is at an end."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {patience_s:g} s in vain"
        time.sleep(LOOK_EVERY_S)
    return found


def first_step(client: Client, job_id: str) -> JobEvent:
    """Return the first denoising step of a job as soon as it is done: now it runs for certain."""
    return next(event for event in client.watch(job_id) if event.step)


def to_the_end(client: Client, job_id: str) -> list[JobEvent]:
    """Watch a job until it has ended; return all its events."""
    return list(client.watch(job_id))


def free_ports(count: int) -> list[int]:
    """Return ports that are free now, for servers that must be told theirs.

    They lie below those that outgoing connections are given, so that none of these takes one before its server does.
    """
    probes: list[socket.socket] = []
    while len(probes) < count:
        with suppress(OSError):
            probes.append(socket.create_server(("127.0.0.1", random.randrange(15_000, 30_000))))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def steps_of(events: list[JobEvent]) -> Iterator[tuple[int, int]]:
    """Yield (image, step) of each step event, in the order of the events."""
    return ((event.step.image_index, event.step.step) for event in events if event.step)
