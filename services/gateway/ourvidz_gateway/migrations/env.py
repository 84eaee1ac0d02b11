"""Runs the migrations in one transaction under a lock, so that several gateways may start at once."""

from __future__ import annotations

import asyncio

import asyncpg
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

CONNECT_TIMEOUT_S = 10.0
STEP_TIMEOUT_S = 300.0
"""For one statement, and for another gateway's migration: the start of a gateway must not hang for ever."""

LOCK = 0x6F75_7276_6964_7A31
"""Any number that nobody else uses for pg_advisory_lock: `ourvidz1`."""


def migrate(connection: Connection) -> None:
    """Bring the schema to the revision that was asked for."""
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()


async def main() -> None:
    """Connect by the gateway's own DSN, which asyncpg reads better than SQLAlchemy does."""
    dsn = context.config.attributes["dsn"]
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        async_creator=lambda: asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=STEP_TIMEOUT_S),
    )
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(main())
