"""The database: one pool of connections, and the schema that it must have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import asyncpg

from ourvidz_gateway.errors import DatabaseUnavailable

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 10.0
"""No statement of ours takes longer; a stalled network must not hold a request for ever."""

CLOSE_TIMEOUT_S = 2.0
"""How long connections may take to close in good order."""

RETRY_AFTER_S = 5.0
"""What clients are told to wait while the database is away."""

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
)
"""What asyncpg raises when the server is down, starting, stopping, out of reach, full, a standby, or gave way.

All of it passes: the same statement may succeed later. `InternalClientError` is what a statement meets on a connection
whose end the server has announced but that is not closed yet."""


@contextmanager
def reaching_database() -> Iterator[None]:
    """Turn every way of not reaching the server into `DatabaseUnavailable`."""
    try:
        yield
    except UNREACHABLE as error:
        raise DatabaseUnavailable("The database is out of reach.", retry_after_s=RETRY_AFTER_S) from error


class Database:
    """A pool of connections to PostgreSQL. Every call raises `DatabaseUnavailable` when the server is out of reach."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Run one statement and return its rows."""
        with reaching_database():
            async with self._connection() as connection:
                return list(await connection.fetch(query, *args))

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Run one statement and return its first row."""
        with reaching_database():
            async with self._connection() as connection:
                return await connection.fetchrow(query, *args)

    async def execute(self, query: str, *args: Any) -> None:
        """Run one statement."""
        with reaching_database():
            async with self._connection() as connection:
                await connection.execute(query, *args)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
        """Lend a connection with an open transaction; it commits at the end, or rolls back when an error leaves."""
        with reaching_database():
            async with self._connection() as connection, connection.transaction():
                yield connection

    @asynccontextmanager
    async def alone(self, work: str) -> AsyncIterator[bool]:
        """Hold the right to do some work for as long as the block lasts; give False where somebody else holds it.

        It hangs on a connection: when that breaks, somebody else may begin before the block is left. So the work must
        be such that doing it twice does no harm.
        """
        with reaching_database():
            # The lock goes with the connection's return to the pool, which resets all that a session holds.
            async with self._connection() as connection:
                yield await connection.fetchval("SELECT pg_try_advisory_lock(hashtext('ourvidz'), hashtext($1))", work)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
        """Lend a connection. One that gave no answer in time, or whose user leaves amid a statement, is thrown away.

        Given back, it would first be waited for: for the answer that never came, and for that to a cancel.
        """
        async with self._pool.acquire(timeout=CONNECT_TIMEOUT_S) as connection:
            try:
                yield connection
            except (TimeoutError, asyncio.CancelledError):
                connection.terminate()
                raise


@asynccontextmanager
async def open_database(dsn: str, *, max_connections: int = 16, durable: bool = True) -> AsyncIterator[Database]:
    """Connect to the database at `dsn` and close all connections at the end.

    With `durable` false, a commit does not wait for the disk: a crash of the database's host may lose the last ones.
    """
    with reaching_database():
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=max_connections,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            init=_prepare,
            server_settings={
                "application_name": "ourvidz-gateway",
                "synchronous_commit": "on" if durable else "off",
                # What we gave up must not go on there, and a gateway that vanished without a word not hold its locks.
                "statement_timeout": f"{COMMAND_TIMEOUT_S * 1000:.0f}",
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "3",
            },
        )
    try:
        yield Database(pool)
    finally:
        try:
            await asyncio.wait_for(pool.close(), CLOSE_TIMEOUT_S)
        except UNREACHABLE:
            pool.terminate()


async def connect(dsn: str) -> asyncpg.Connection:
    """Open one connection outside the pool, for LISTEN."""
    with reaching_database():
        return await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S)


async def migrate(dsn: str) -> None:
    """Bring the schema at `dsn` up to date. Several processes may do so at once; within one, one call at a time."""
    config = alembic.config.Config(attributes={"dsn": dsn})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with reaching_database():
        # In a thread: Alembic is blocking, and its environment runs an event loop of its own.
        await asyncio.to_thread(alembic.command.upgrade, config, "head")


async def _prepare(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
