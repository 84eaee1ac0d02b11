"""What an absent database is, and what is not."""

import asyncio
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest

from ourvidz_gateway.database import Database, open_database
from ourvidz_gateway.errors import DatabaseUnavailable


@pytest.mark.parametrize("code", ["40P01", "40001", "53100", "57014", "58030", "25006"])
async def test_errors_that_pass_are_an_absent_database(database: Database, code: str):
    with pytest.raises(DatabaseUnavailable):
        await database.execute(f"DO $$ BEGIN RAISE EXCEPTION 'passes' USING ERRCODE = '{code}'; END $$")


async def test_a_value_that_no_column_takes_is_not_an_absent_database(database: Database):
    with pytest.raises(asyncpg.DataError):
        await database.fetch("SELECT $1::integer", 2**40)


async def test_a_connection_that_the_server_is_about_to_close_is_an_absent_database(dsn: str, tmp_path: Path):
    """Between its last word and the end of the connection, which come apart on a wire."""
    folder = parse_qs(urlsplit(dsn).query)["host"][0]
    clients: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        far_reader, far_writer = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        await asyncio.gather(copied(reader, far_writer), copied(far_reader, writer))

    async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
        writer.close()

    async with (
        await asyncio.start_unix_server(relay, tmp_path / ".s.PGSQL.5432"),
        open_database(dsn.replace(quote(folder), quote(str(tmp_path)))) as database,
    ):
        await database.execute("SELECT 1")
        words = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
        clients[0].write(b"E" + (len(words) + 4).to_bytes(4) + words)
        for _ in range(10):  # until it has been heard, while no statement runs
            await asyncio.sleep(0)
        with pytest.raises(DatabaseUnavailable):
            await database.execute("SELECT 1")
        clients[0].transport.abort()
