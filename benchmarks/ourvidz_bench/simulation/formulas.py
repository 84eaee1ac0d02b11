"""What queueing theory says of jobs that come at random and GPUs that take them in order."""

from __future__ import annotations

from math import log, sqrt


def waiting_share(gpus: int, load: float) -> float:
    """Return which share of jobs must wait, with exponential service times (Erlang's C). `load` is 0 to 1."""
    offered = gpus * load
    blocked = 1.0
    for count in range(1, gpus + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked / (1 - load * (1 - blocked))


def mean_wait_s(gpus: int, load: float, service_s: float) -> float:
    """Return the mean wait with exponential service times (M/M/c)."""
    return waiting_share(gpus, load) * service_s / (gpus * (1 - load))


def wait_quantile_s(gpus: int, load: float, service_s: float, share: float) -> float:
    """Return the wait that this share of jobs stays below, with exponential service times (M/M/c)."""
    return max(0.0, log(waiting_share(gpus, load) / (1 - share)) * service_s / (gpus * (1 - load)))


def mean_wait_constant_s(gpus: int, load: float, service_s: float) -> float:
    """Return the mean wait where all jobs take the same time (M/D/c, by Cosmetatos; exact for one GPU)."""
    correction = (1 - load) * (gpus - 1) * (sqrt(4 + 5 * gpus) - 2) / (16 * gpus * load)
    return mean_wait_s(gpus, load, service_s) / 2 * (1 + correction)
