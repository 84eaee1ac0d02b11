"""A cell: GPUs of one kind and the jobs that wait for them, event by event."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random


@dataclass(frozen=True, slots=True)
class Job:
    """Somebody asks for something that takes a GPU so long."""

    arrives_s: float
    user: str
    service_s: float
    steps: int = 1
    """What its lane is charged."""


@dataclass
class _Lane:
    virtual_time: float
    claimed: int = 0
    """Which claim of all was its last one; 0: none yet."""
    waiting: deque[Job] = field(default_factory=deque)


class Lanes:
    """Jobs that wait, user by user; next is the oldest job of the lane with the lowest virtual time.

    Of equals, the one that has not had its turn for longest is first.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._heads: list[tuple[float, int, int, str]] = []
        self._order = 0
        self._claims = 0
        self._highest = 0.0

    def __bool__(self) -> bool:
        return bool(self._heads)

    def put(self, job: Job) -> None:
        """Let a job wait. A lane that starts to wait begins where the others stand."""
        lane = self._lanes.setdefault(job.user, _Lane(0.0))
        if not lane.waiting:
            lane.virtual_time = max(lane.virtual_time, self._heads[0][0] if self._heads else self._highest)
            self._push(job.user)
        lane.waiting.append(job)

    def take(self) -> Job:
        """Return the job that is next, and charge its lane."""
        *_, user = heapq.heappop(self._heads)
        lane = self._lanes[user]
        job = lane.waiting.popleft()
        lane.virtual_time += job.steps
        self._claims += 1
        lane.claimed = self._claims
        self._highest = max(self._highest, lane.virtual_time)
        if lane.waiting:
            self._push(user)
        return job

    def _push(self, user: str) -> None:
        self._order += 1
        lane = self._lanes[user]
        heapq.heappush(self._heads, (lane.virtual_time, lane.claimed, self._order, user))


class Line:
    """Jobs that wait in the order in which they came, whoever asked."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, job: Job) -> None:
        """Let a job wait."""
        self._waiting.append(job)

    def take(self) -> Job:
        """Return the job that is next."""
        return self._waiting.popleft()


def waits(jobs: Iterable[Job], gpus: int, queue: Lanes | Line) -> list[tuple[Job, float]]:
    """Return each job and the seconds that it waited, in the order in which they begin; `jobs` come in order."""
    begun: list[tuple[Job, float]] = []
    busy_until: list[float] = []

    def begin(now_s: float) -> None:
        job = queue.take()
        begun.append((job, now_s - job.arrives_s))
        heapq.heappush(busy_until, now_s + job.service_s)

    def free_until(time_s: float) -> None:
        while busy_until and busy_until[0] <= time_s:
            now_s = heapq.heappop(busy_until)
            if queue:
                begin(now_s)

    for job in jobs:
        free_until(job.arrives_s)
        queue.put(job)
        if len(busy_until) < gpus:
            begin(job.arrives_s)
    free_until(float("inf"))
    return begun


@dataclass(frozen=True, slots=True)
class JobType:
    """One kind of job in a mix."""

    share: float
    """Of all jobs."""
    service_s: float
    steps: int = 1


def poisson(
    rate: float, count: int, types: Sequence[JobType], random: Random, *, users: int = 100, exponential: bool = False
) -> list[Job]:
    """Return so many jobs at so many a second, of a mix of types, by users who are alike.

    Each takes as long as its type says, or with `exponential` that long on average.
    """
    now_s, jobs = 0.0, []
    for job_type in random.choices(types, [each.share for each in types], k=count):
        now_s += random.expovariate(rate)
        service_s = random.expovariate(1 / job_type.service_s) if exponential else job_type.service_s
        jobs.append(Job(now_s, str(random.randrange(users)), service_s, job_type.steps))
    return jobs


def pinned(jobs: Iterable[Job], cells: int) -> Mapping[int, list[Job]]:
    """Return the jobs of each of several cells; all jobs of a user are in one."""
    kept: dict[int, list[Job]] = {cell: [] for cell in range(cells)}
    for job in jobs:
        kept[Random(job.user).randrange(cells)].append(job)  # noqa: S311  # no secret
    return kept


def quantile(figures: Iterable[float], share: float) -> float:
    """Return the value that this share of all lies below."""
    ordered = sorted(figures)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
