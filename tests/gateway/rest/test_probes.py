"""The probes, and the API's own description."""

from ourvidz_gateway.errors import DatabaseUnavailable


async def test_the_process_lives_and_is_ready_without_a_token(client):
    del client.headers["Authorization"]

    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"status": "ok"}


async def test_without_its_database_the_gateway_lives_and_is_not_ready(client, jobs):
    with jobs.failing(DatabaseUnavailable("The database is out of reach.")):
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")

    assert (ready.status_code, ready.headers["Retry-After"]) == (503, "5")


async def test_the_description_shows_requests_replies_errors_and_the_token(client):
    document = (await client.get("/openapi.json")).json()

    queue_job = document["paths"]["/api/queue-job"]["post"]
    body = queue_job["requestBody"]["content"]["application/json"]["schema"]
    assert body["example"]["jobType"] == "sdxl_image_fast"
    assert "seed" in body["properties"]["metadata"]["properties"]
    assert queue_job["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/QueueJobReply")
    assert queue_job["responses"]["default"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorReply")
    assert queue_job["security"] == [{"token": []}]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    events = document["paths"]["/api/jobs/{job_id}/events"]["get"]
    assert "event: step" in events["responses"]["200"]["content"]["text/event-stream"]["example"]


async def test_no_route_claims_to_answer_422(client):
    paths = (await client.get("/openapi.json")).json()["paths"]

    assert not [path for path, methods in paths.items() for each in methods.values() if "422" in each["responses"]]


async def test_the_docs_page_opens(client):
    assert (await client.get("/docs")).status_code == 200
