"""Fixtures that all tests can ask for."""

from support.postgres import dsn, postgres
from support.s3 import s3_server

__all__ = ["dsn", "postgres", "s3_server"]
