"""The API's own description; that it is true is tested in tests/contract."""

from ourvidz_gateway.errors import InvalidQuantity, JobNotFound, QueueFull
from ourvidz_gateway.rest.errors import errors


async def test_the_description_shows_requests_replies_and_the_token(client):
    document = (await client.get("/openapi.json")).json()

    queue_job = document["paths"]["/api/queue-job"]["post"]
    body = queue_job["requestBody"]["content"]["application/json"]["schema"]
    assert body["example"]["jobType"] == "sdxl_image_fast"
    assert "seed" in body["properties"]["metadata"]["properties"]
    assert queue_job["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/QueueJobReply")
    assert queue_job["security"] == [{"token": []}]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    events = document["paths"]["/api/jobs/{job_id}/events"]["get"]
    assert "event: step" in events["responses"]["200"]["content"]["text/event-stream"]["example"]


async def test_a_route_shows_its_own_errors_by_status_in_the_one_shape(client):
    document = (await client.get("/openapi.json")).json()

    answers = document["paths"]["/api/queue-job"]["post"]["responses"]
    assert sorted(answers) == ["200", "400", "401", "402", "413", "422", "429", "503"]
    for status in ("400", "402", "422", "503"):
        assert answers[status]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorReply")
    assert "NoRenderer" in answers["503"]["content"]["application/json"]["examples"]
    assert "Retry-After" in answers["429"]["headers"]


async def test_what_the_framework_would_answer_is_not_described(client):
    text = (await client.get("/openapi.json")).text

    assert "ValidationError" not in text


async def test_errors_of_one_status_are_described_together_with_an_example_each():
    described = errors(InvalidQuantity, QueueFull, JobNotFound)

    assert sorted(described) == [400, 401, 404, 503]
    assert described[503]["description"].startswith("Too many jobs wait for the renderer that the job type needs.")
    examples = described[503]["content"]["application/json"]["examples"]
    assert set(examples) == {"QueueFull", "IdentityProviderUnavailable", "DatabaseUnavailable"}
    example = described[400]["content"]["application/json"]["examples"]["InvalidQuantity"]["value"]
    assert example["invalidQuantity"] is True
    assert "reason=INVALID_QUANTITY" in example["details"]


async def test_a_route_that_asks_for_no_token_answers_no_401():
    assert list(errors(QueueFull, signed_in=False)) == [503]
