"""Whether the process lives, and whether it can serve."""

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
