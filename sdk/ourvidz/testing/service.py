"""The double as a whole: its servers, and what a test can tell it."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import grpc

from ourvidz.admin_client import AdminClient
from ourvidz.api.admin.v1 import admin_pb2_grpc
from ourvidz.api.assets.v1 import assets_pb2_grpc
from ourvidz.api.jobs.v1 import jobs_pb2_grpc
from ourvidz.async_client import AsyncClient
from ourvidz.client import Client
from ourvidz.credits import Credits
from ourvidz.errors import OurVidzError
from ourvidz.jobs import Job
from ourvidz.testing.admin_service import FakeAdminService
from ourvidz.testing.asset_service import FakeAssetService
from ourvidz.testing.files import FileServer
from ourvidz.testing.job_service import FakeJobService
from ourvidz.testing.reception import Received, Reception
from ourvidz.testing.runs import Runs
from ourvidz.testing.scripts import Script
from ourvidz.testing.world import World

WORKERS = 64
"""Calls that are served at once; each watcher keeps one."""


class FakeOurVidz:
    """A service in this process, for one `with` block; everything in it is gone afterwards.

    `credits` are what each user has at first. Each image of a job takes `steps` denoising steps, with `step_pause_s`
    seconds before each. `reference_hosts` and `webhook_hosts` are the hosts that jobs may name. `jwt_secret` is what
    tokens must be signed with (HS256); one is drawn where the program under test takes its tokens from `token`.
    """

    def __init__(
        self,
        *,
        credits: int = 1000,  # noqa: A002  # the user's word for them
        steps: int = 4,
        step_pause_s: float = 0.0,
        reference_hosts: Collection[str] = (),
        webhook_hosts: Collection[str] = (),
        jwt_secret: str | None = None,
    ) -> None:
        self._files = FileServer()
        self._world = World(self._files, credits=credits)
        self._reception = Reception(self._world, secret=jwt_secret or secrets.token_urlsafe(48))
        self._runs = Runs(self._world, step_count=steps, step_pause_s=step_pause_s)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="ourvidz")
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        job_service = FakeJobService(
            self._world,
            self._reception,
            self._runs,
            reference_hosts=reference_hosts,
            webhook_hosts=webhook_hosts,
        )
        jobs_pb2_grpc.add_JobServiceServicer_to_server(job_service, self._server)
        assets_pb2_grpc.add_AssetServiceServicer_to_server(FakeAssetService(self._world, self._reception), self._server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(FakeAdminService(self._world, self._reception), self._server)
        self._clients = ExitStack()
        self.address = ""
        """The gRPC API's `host:port`, on loopback."""

    @property
    def url(self) -> str:
        """Where files are downloaded from."""
        return self._files.url

    def __enter__(self) -> Self:
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        self._files.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clients.close()
        with self._world.changed:
            self._world.closed = True
            self._world.changed.notify_all()
        self._server.stop(None).wait()
        self._pool.shutdown()
        self._runs.stop()
        self._files.stop()

    def token(self, user: str = "demo", *, operator: bool = False) -> str:
        """Return a token of a user, good for a day."""
        return self._reception.token(user, operator=operator)

    def client(self, user: str = "demo") -> Client:
        """Return a user's client, which is closed with the service."""
        return self._clients.enter_context(Client(self.address, self.token(user), url=self.url))

    def async_client(self, user: str = "demo") -> AsyncClient:
        """Return a user's client for asyncio; close it, or use it in an `async with`."""
        return AsyncClient(self.address, self.token(user), url=self.url)

    def admin_client(self, user: str = "operator") -> AdminClient:
        """Return an operator's client, which is closed with the service."""
        return self._clients.enter_context(AdminClient(self.address, self.token(user, operator=True)))

    def environment(self, user: str = "demo") -> dict[str, str]:
        """Return what `Client.from_environment` reads to find this service, as this user."""
        return {"OURVIDZ_GRPC": self.address, "OURVIDZ_URL": self.url, "OURVIDZ_TOKEN": self.token(user)}

    def fail_next(self, message: str, *, after_steps: int = 1) -> None:
        """Let the next job that has no script yet fail with this message, after so many of its steps."""
        self._script(Script(fails=message, after_steps=after_steps))

    def cancel_next(self, *, after_steps: int = 1) -> None:
        """Let the next job that has no script yet be cancelled, as if its user had done so elsewhere."""
        self._script(Script(cancelled=True, after_steps=after_steps))

    def hold_next(self, *, after_steps: int = 0) -> None:
        """Let the next job that has no script yet stop until `release`, or until it is cancelled.

        With no steps it still waits in its queue, after some it runs.
        """
        self._script(Script(held=True, after_steps=after_steps))

    def complete_next(self) -> None:
        """Let the next job that has no script yet complete, as all do that have none: for a place in the order."""
        self._script(Script())

    def release(self) -> None:
        """Let all jobs that are held go on."""
        with self._world.changed:
            for job in self._world.jobs.values():
                job.released = True
            self._world.changed.notify_all()

    def refuse_next(self, error: OurVidzError, *, call: str = "CreateJob") -> None:
        """Answer the next call of this name with an error, for example `QueueFull("…", retry_after_s=5)`.

        `call` is the contract's name of it, AdminService's as `Admin/GetCredits`. The client does not repeat a call
        that is refused so, which it otherwise does for a moment where a service is away.
        """
        with self._world.changed:
            self._reception.refusals[call].append(error)

    def set_credits(self, user: str, available: int) -> None:
        """Set what a user can spend; what is held for jobs stays held."""
        with self._world.changed:
            self._world.account(user).available = available

    def credits_of(self, user: str = "demo") -> Credits:
        """Return a user's credits."""
        with self._world.changed:
            account = self._world.account(user)
            return Credits(account.available, account.reserved)

    @property
    def jobs(self) -> list[Job]:
        """All users' jobs as they are now, oldest first."""
        with self._world.changed:
            return [self._world.as_job(job) for job in self._world.jobs.values()]

    @property
    def received(self) -> list[Received]:
        """All calls that came with a good token, oldest first, refused ones as well."""
        with self._world.changed:
            return list(self._reception.received)

    def requests(self, call: str) -> list[Any]:
        """Return the contract's messages of all calls of this name, oldest first: `requests("CreateJob")`."""
        return [each.request for each in self.received if each.method == call]

    def _script(self, script: Script) -> None:
        with self._world.changed:
            self._world.scripts.append(script)
