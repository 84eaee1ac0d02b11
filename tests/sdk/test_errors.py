from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from ourvidz import Client, errors
from ourvidz.errors import BY_REASON, InvalidRequest, InvalidSeed, OurVidzError, ServerFailure, Unavailable, Unreachable
from ourvidz_gateway import errors as gateway_errors
from support.scripted_jobs import Failure, ScriptedJobs, job

JOB = job().id

PROTOS = Path(__file__).resolve().parents[2] / "protos" / "ourvidz" / "api"


@pytest.mark.parametrize("reason", BY_REASON)
def test_each_reason_has_its_exception(service: ScriptedJobs, client: Client, reason: str):
    service.answer("GetJob", Failure(grpc.StatusCode.FAILED_PRECONDITION, "in words", reason))
    with pytest.raises(BY_REASON[reason], match=r"^in words$") as caught:
        client.get_job(JOB)
    assert type(caught.value) is BY_REASON[reason]
    assert caught.value.reason == reason


def test_an_error_tells_the_bad_fields_and_when_to_ask_again(service: ScriptedJobs, client: Client):
    code = grpc.StatusCode.INVALID_ARGUMENT
    service.answer("CreateJob", Failure(code, "bad seed", "INVALID_SEED", 30, {"seed": "must be 0 or more"}))
    with pytest.raises(InvalidSeed) as caught:
        client.create_job("sdxl_image_fast", "a lighthouse", seed=-1)
    assert caught.value.retry_after_s == 30
    assert [(bad.field, bad.description) for bad in caught.value.fields] == [("seed", "must be 0 or more")]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.INTERNAL, ServerFailure),
    ],
)
def test_a_reason_of_a_newer_server_falls_back_to_its_code(service: ScriptedJobs, client: Client, code, kind):
    attempts = 4 if code is grpc.StatusCode.UNAVAILABLE else 1
    for _ in range(attempts):
        service.answer("GetJob", Failure(code, "in words", "NEVER_HEARD_OF"))
    with pytest.raises(kind) as caught:
        client.get_job(JOB)
    assert type(caught.value) is kind
    assert caught.value.reason == "NEVER_HEARD_OF"


def test_an_address_where_nobody_listens_is_named(open_client: Callable[..., Client]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable, match=f"No answer from {address}: Connection refused"):
            open_client(address).get_job(JOB)


def test_every_reason_that_the_contracts_name_has_an_exception():
    named = set()
    for contract in ("jobs", "assets", "admin"):
        words = (PROTOS / contract / "v1" / f"{contract}.proto").read_text().replace("//", " ").split()
        comment = " ".join(words).partition("Reasons used here: ")[2].partition(". Every call")[0]
        named |= {reason.strip() for reason in comment.rstrip(".").split(",")}
    assert "PROMPT_REFUSED" in named
    assert named <= BY_REASON.keys()


def test_every_reason_of_the_gateway_has_an_exception():
    kinds = [gateway_errors.GatewayError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert len(kinds) > 20
    assert {kind.reason for kind in kinds[1:]} == BY_REASON.keys()


def test_the_tree_of_exceptions_is_drawn_as_it_is():
    drawn, above = {}, []
    for line in (errors.__doc__ or "").splitlines():
        bare = line.lstrip("│├└─ ")
        if not bare or not line.startswith(("│", "├", "└", "OurVidzError")):
            continue
        depth = (len(line) - len(bare)) // 4
        name = bare.split()[0]
        above[depth:] = [name]
        drawn[name] = above[depth - 1] if depth else "Exception"
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, OurVidzError)]
    assert drawn == {kind.__name__: kind.__base__.__name__ for kind in kinds}
