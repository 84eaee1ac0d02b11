"""What a user is told of their credits over REST."""

import httpx

from ourvidz_gateway.rest import create_rest_app
from support import fronts
from support.jobs import Bench
from support.memory_jobs import MemoryJobs


async def test_a_user_sees_what_can_be_spent_and_what_is_held(bench: Bench, tmp_path):
    await bench.add_job("alice", credits=3)
    app = create_rest_app(fronts.front(MemoryJobs(), tmp_path / "objects", bench.database))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        for user, shown in (("alice", (997, 3)), ("bob", (1000, 0))):
            reply = await client.get("/api/credits", headers={"Authorization": f"Bearer {fronts.token(user)}"})
            assert (reply.status_code, reply.json()) == (200, {"available": shown[0], "reserved": shown[1]})
        assert (await client.get("/api/credits")).status_code == 401
