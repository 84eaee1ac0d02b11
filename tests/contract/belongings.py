"""What one user has, and another must not find a trace of."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from contract.driver import Driver, JobView, ReferenceView, made
from contract.world import World
from support import fronts
from support.pictures import file_of, halves

WAITING = "video_fast"
"""A type whose renderer is configured and down: its jobs wait."""
KEY = "a key that both chose"
PROJECT = "a project of the same name"
SECRET = "what only its owner may read"


@dataclass(frozen=True)
class Belongings:
    """What somebody has."""

    job: JobView
    """It has ended, and has an asset."""
    waiting: str
    """The id of a job that has not."""
    reference: ReferenceView
    ticket: str
    """Opens the events of `job`."""

    @property
    def traces(self) -> list[str]:
        """What must not turn up in anybody else's replies."""
        path = urlsplit(self.job.assets[0].url).path
        return [self.job.id, self.waiting, self.reference.id, self.job.assets[0].id, path, self.ticket, SECRET]


async def belongings(world: World, user: str) -> Belongings:
    driver: Driver = world.driver("rest", user)
    reference = await driver.upload(file_of(halves()), f"{SECRET}.png")
    job = await made(driver, prompt=SECRET, project_id=PROJECT)
    waiting = await driver.create(WAITING, SECRET, key=KEY, project_id=PROJECT)
    async with world.http(f"Bearer {fronts.token(user)}") as client:
        ticket = (await client.post(f"/api/jobs/{job.id}/ticket")).json()["ticket"]
    return Belongings(job, waiting.id, reference, ticket)


UNKNOWN = "7b0e1a52-95a7-4f0e-8d5c-3f1f6f0d2a11"
"""The id of nothing."""
