"""Users share the renderers fairly, whichever gateways they ask."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from support.gateways import gateway_process
from support.jobs import Bench
from support.renderer import Renderer


async def test_another_users_first_job_starts_next_though_one_user_has_200_queued_at_two_gateways(
    dsn: str, tmp_path: Path, renderer: Renderer, bench: Bench
):
    address = f"127.0.0.1:{renderer.server.port}"
    async with AsyncExitStack() as stack:
        first, second = await asyncio.gather(
            *(stack.enter_async_context(gateway_process(dsn, tmp_path, sdxl=address)) for _ in range(2))
        )
        await first.ask("hold:0:1")
        await renderer.gate.held()
        replies = await asyncio.gather(first.ask_at_once(100), second.ask_at_once(100))
        assert {reply.status_code for reply in [*replies[0], *replies[1]]} == {200}
        for gateway, user in ((second, "bob"), (first, "carol")):
            await gateway.ask_at_once(3, user=user)

        renderer.gate.release()
        await bench.until("(SELECT count(*) FROM attempts) > 12")

        served = [row["user_id"] for row in await bench.database.fetch(STARTED)]
        await first.stop()
        await second.stop()

    assert served[0] == "alice"
    assert sorted(served[1:3]) == ["bob", "carol"]
    # Everybody who waits has a turn in each round; then only alice is left.
    rounds = [sorted(served[start : start + 3]) for start in (1, 4, 7)]
    assert rounds == [["alice", "bob", "carol"]] * 3
    assert served[10:12] == ["alice", "alice"]


STARTED = "SELECT j.user_id FROM attempts a JOIN jobs j ON j.id = a.job_id ORDER BY a.started_at"
