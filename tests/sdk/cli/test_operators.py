"""What operators do on the command line."""

from __future__ import annotations

import json

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from ourvidz.api.admin.v1 import admin_pb2
from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.cli import app
from support.scripted_jobs import Failure, ScriptedJobs, job

pytestmark = pytest.mark.usefixtures("environment")

JOB = job().id
CREDITS = admin_pb2.Credits(user_id="ann", available=12, reserved=1)


def run(*arguments: str):
    return CliRunner().invoke(app, arguments)


def delivery(**fields) -> admin_pb2.Delivery:
    given = {
        "id": "d", "job_id": JOB, "user_id": "ann", "url": "https://hooks/x", "attempt_count": 3,
        "state": admin_pb2.DELIVERY_STATE_FAILED, "last_http_status": 500, "last_error": "it said\n500",
        "create_time": Timestamp(seconds=1_700_000_000), **fields,
    }  # fmt: skip
    return admin_pb2.Delivery(**given)


def quarantined(**fields) -> admin_pb2.QuarantinedJob:
    given = {
        "job_id": JOB, "user_id": "ann", "job_type": "video_fast", "attempt_count": 3, "error_message": "it died",
        "renderers": ["a:1", "b:1"], "quarantine_time": Timestamp(seconds=1_700_000_000), **fields,
    }  # fmt: skip
    return admin_pb2.QuarantinedJob(**given)


def test_ones_own_credits_are_shown(service: ScriptedJobs):
    for _ in range(2):
        service.answer("GetCredits", jobs_pb2.GetCreditsResponse(available=9, reserved=1))
    assert run("credits", "show").stdout == "available 9\nreserved  1\n"
    assert json.loads(run("credits", "show", "--json").stdout) == {"available": 9, "reserved": 1}


def test_another_users_credits_are_shown_to_operators(service: ScriptedJobs):
    service.answer("Admin/GetCredits", admin_pb2.GetCreditsResponse(credits=CREDITS))
    assert run("credits", "show", "ann").stdout == "available 12\nreserved  1\n"
    assert service.requests("Admin/GetCredits")[0].user_id == "ann"


@pytest.mark.parametrize("amount", [5, -5])
def test_credits_are_granted_and_taken_away(service: ScriptedJobs, amount: int):
    service.answer("Admin/GrantCredits", admin_pb2.GrantCreditsResponse(credits=CREDITS))
    result = run("credits", "grant", "ann", str(amount), "--note", "as agreed")
    assert (result.exit_code, result.stdout) == (0, "available 12\nreserved  1\n")
    (request,) = service.requests("Admin/GrantCredits")
    assert (request.user_id, request.amount, request.note) == ("ann", amount, "as agreed")


@pytest.mark.parametrize("arguments", [["ann"], ["ann", "many"], ["ann", "--mood"]])
def test_a_wrong_amount_grants_nothing(service: ScriptedJobs, arguments: list[str]):
    assert run("credits", "grant", *arguments).exit_code == 2
    assert service.calls == []


def test_a_user_is_told_how_to_become_an_operator(service: ScriptedJobs):
    service.answer("Admin/GetCredits", Failure(grpc.StatusCode.PERMISSION_DENIED, "No.", "PERMISSION_DENIED"))
    result = run("credits", "show", "ann")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: No; for the local stack: export OURVIDZ_TOKEN=$(ourvidz token NAME --operator)\n"


def test_webhooks_are_listed_a_line_for_each(service: ScriptedJobs):
    service.answer("Admin/ListDeliveries", admin_pb2.ListDeliveriesResponse(deliveries=[delivery()]))
    result = run("webhooks", "list", "--state", "failed", "--job", JOB, "--user", "ann", "--limit", "5")
    cells = result.stdout.rstrip("\n").split("\t")
    assert (*cells[:4], *cells[5:]) == ("d", "failed", "3", "500", "", JOB, "https://hooks/x", "it said 500")
    (request,) = service.requests("Admin/ListDeliveries")
    assert (request.state, request.job_id) == (admin_pb2.DELIVERY_STATE_FAILED, JOB)
    assert (request.user_id, request.page_size) == ("ann", 5)


def test_webhooks_are_listed_for_programs(service: ScriptedJobs):
    service.answer("Admin/ListDeliveries", admin_pb2.ListDeliveriesResponse(deliveries=[delivery()]))
    (shown,) = json.loads(run("webhooks", "list", "--json").stdout)
    assert (shown["id"], shown["state"], shown["last_http_status"]) == ("d", "failed", 500)
    assert (shown["created_at"], shown["next_attempt_at"]) == ("2023-11-14T22:13:20+00:00", None)


def test_a_webhook_is_sent_again(service: ScriptedJobs):
    answer = admin_pb2.RetryDeliveryResponse(delivery=delivery(state=admin_pb2.DELIVERY_STATE_PENDING))
    service.answer("Admin/RetryDelivery", answer)
    assert run("webhooks", "retry", "d").stdout == "pending\n"


def test_a_webhook_that_is_being_sent_is_not_sent_twice(service: ScriptedJobs):
    busy = Failure(grpc.StatusCode.FAILED_PRECONDITION, "It is being sent.", "DELIVERY_IN_PROGRESS", 30)
    service.answer("Admin/RetryDelivery", busy)
    result = run("webhooks", "retry", "d")
    assert (result.exit_code, result.stderr) == (1, "Error: It is being sent; try again in 30 s\n")


def test_quarantined_jobs_are_listed_a_line_for_each(service: ScriptedJobs):
    answer = admin_pb2.ListQuarantinedResponse(jobs=[quarantined(), quarantined(released_job_id="n")])
    service.answer("Admin/ListQuarantined", answer)
    lines = run("jobs", "quarantined", "--released", "--user", "ann").stdout.splitlines()
    first, second = (line.split("\t") for line in lines)
    assert (*first[:4], *first[5:]) == (JOB, "video_fast", "ann", "3", "", "a:1 b:1", "it died")
    assert second[5] == "n"
    (request,) = service.requests("Admin/ListQuarantined")
    assert (request.include_released, request.user_id) == (True, "ann")


def test_quarantined_jobs_are_listed_for_programs(service: ScriptedJobs):
    service.answer("Admin/ListQuarantined", admin_pb2.ListQuarantinedResponse(jobs=[quarantined()]))
    (shown,) = json.loads(run("jobs", "quarantined", "--json").stdout)
    assert (shown["job_id"], shown["renderers"], shown["released_job_id"]) == (JOB, ["a:1", "b:1"], None)
    assert not service.requests("Admin/ListQuarantined")[0].include_released


def test_a_quarantined_job_is_released_as_the_job_that_is_printed(service: ScriptedJobs):
    service.answer("Admin/ReleaseQuarantined", admin_pb2.ReleaseQuarantinedResponse(released_job_id="n"))
    assert run("jobs", "release", JOB).stdout == "n\n"


def test_the_queues_are_shown(service: ScriptedJobs):
    sdxl = jobs_pb2.QueueStatus(name="sdxl_queue", depth=2, running=1, renderer_count=1)
    sdxl.oldest_wait.FromMilliseconds(7_400)
    answer = jobs_pb2.GetQueueStatusResponse(queue_depth=2, queues=[sdxl, jobs_pb2.QueueStatus(name="wan_queue")])
    for _ in range(2):
        service.answer("GetQueueStatus", answer)
    assert run("queue").stdout == "sdxl_queue\t2\t1\t7 s\t1\nwan_queue\t0\t0\t\t0\n"
    assert json.loads(run("queue", "--json").stdout) == {
        "queueDepth": 2,
        "queues": {
            "sdxl_queue": {"depth": 2, "running": 1, "oldestSeconds": 7.4, "renderers": 1},
            "wan_queue": {"depth": 0, "running": 0, "oldestSeconds": None, "renderers": 0},
        },
    }


def test_short_credits_say_who_gives_more(service: ScriptedJobs):
    short = Failure(grpc.StatusCode.FAILED_PRECONDITION, "The job costs 1 credit.", "INSUFFICIENT_CREDITS")
    service.answer("CreateJob", short)
    result = run("generate", "a lighthouse")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "Error: The job costs 1 credit; an operator gives more with `ourvidz credits grant USER AMOUNT`"
    )
