"""What an absent database is, and what is not."""

import asyncpg
import pytest

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import DatabaseUnavailable


@pytest.mark.parametrize("code", ["40P01", "40001", "53100", "57014", "58030", "25006"])
async def test_errors_that_pass_are_an_absent_database(database: Database, code: str):
    with pytest.raises(DatabaseUnavailable):
        await database.execute(f"DO $$ BEGIN RAISE EXCEPTION 'passes' USING ERRCODE = '{code}'; END $$")


async def test_a_value_that_no_column_takes_is_not_an_absent_database(database: Database):
    with pytest.raises(asyncpg.DataError):
        await database.fetch("SELECT $1::integer", 2**40)
