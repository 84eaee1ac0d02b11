"""Makes three pictures at once and saves them here: `OURVIDZ_TOKEN=$(ourvidz token demo) python examples/async_client.py`."""

import asyncio
from pathlib import Path

from ourvidz import AsyncClient

HOURS = ("dawn", "noon", "dusk")


async def make(client: AsyncClient, hour: str) -> None:
    """Ask for one picture, tell how far it is, save it."""
    making = await client.generate("sdxl_image_fast", f"a lighthouse at {hour}", seed=2026)
    async for event in making:
        print(f"{hour} {event.progress} %")
    job = await making.result()  # raises JobFailed or JobCancelled where there are no pictures
    await client.download(job.assets[0], Path(f"{hour}.png"))


async def main() -> None:
    """Make all of them."""
    async with AsyncClient.from_environment() as client:
        await asyncio.gather(*(make(client, hour) for hour in HOURS))


asyncio.run(main())
