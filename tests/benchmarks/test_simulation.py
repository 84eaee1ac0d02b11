"""The simulation of GPUs and their queue, beside what queueing theory says."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from random import Random
from statistics import mean
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
JOBS = 150_000
SERVICE_S = 5.0


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("ourvidz_bench.simulation.cell")


@pytest.fixture
def formulas(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("ourvidz_bench.simulation.formulas")


def waited(cell: ModuleType, gpus: int, load: float, *, exponential: bool) -> list[float]:
    rate = gpus * load / SERVICE_S
    jobs = cell.poisson(rate, JOBS, [cell.JobType(1, SERVICE_S)], Random(1), exponential=exponential)
    return [wait_s for _, wait_s in cell.waits(jobs, gpus, cell.Line())]


@pytest.mark.parametrize(("gpus", "load"), [(1, 0.5), (1, 0.8), (4, 0.8), (16, 0.9)])
def test_jobs_that_take_exponential_times_wait_as_theory_says(cell, formulas, gpus: int, load: float):
    found = waited(cell, gpus, load, exponential=True)
    assert mean(found) == pytest.approx(formulas.mean_wait_s(gpus, load, SERVICE_S), rel=0.1)
    expected = formulas.wait_quantile_s(gpus, load, SERVICE_S, 0.99)
    assert cell.quantile(found, 0.99) == pytest.approx(expected, rel=0.12)
    assert mean(wait_s > 0 for wait_s in found) == pytest.approx(formulas.waiting_share(gpus, load), rel=0.05)


@pytest.mark.parametrize(("gpus", "load"), [(1, 0.5), (1, 0.8), (4, 0.8), (16, 0.9)])
def test_jobs_that_all_take_the_same_time_wait_about_half_as_long(cell, formulas, gpus: int, load: float):
    found = waited(cell, gpus, load, exponential=False)
    assert mean(found) == pytest.approx(formulas.mean_wait_constant_s(gpus, load, SERVICE_S), rel=0.1)


def test_the_formula_gives_the_known_values(formulas):
    assert formulas.waiting_share(1, 0.7) == pytest.approx(0.7)
    assert formulas.waiting_share(2, 0.5) == pytest.approx(1 / 3)
    assert formulas.mean_wait_constant_s(1, 0.5, 1) == pytest.approx(0.5)


def test_lanes_let_nobody_wait_behind_the_burst_of_another_user(cell):
    burst = [cell.Job(0, "alice", 5) for _ in range(100)]
    jobs = [*burst, cell.Job(1, "bob", 5)]
    bobs = {
        kind: next(wait_s for job, wait_s in cell.waits(jobs, 1, kind()) if job.user == "bob")
        for kind in (cell.Lanes, cell.Line)
    }
    assert bobs == {cell.Lanes: 4, cell.Line: 499}


def test_a_job_of_six_pictures_costs_its_lane_six_turns(cell):
    jobs = [cell.Job(0, "carol", 1)] + [cell.Job(0, "alice", 6, 6)] * 2 + [cell.Job(0, "bob", 1, 1)] * 8
    order = "".join(job.user[0] for job, _ in cell.waits(jobs, 1, cell.Lanes()))
    assert order == "cabbbbbbabb"


def test_all_jobs_of_a_user_are_in_one_cell_and_none_is_lost(cell):
    jobs = cell.poisson(1, 1_000, [cell.JobType(1, 5)], Random(1))
    cells = cell.pinned(jobs, 4)
    homes = [{job.user for job in kept} for kept in cells.values()]
    assert sum(len(kept) for kept in cells.values()) == 1_000
    assert sum(len(users) for users in homes) == len(set.union(*homes))
