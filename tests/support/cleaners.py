"""Cleaners, with settings as an operator would have made them."""

from __future__ import annotations

from typing import Any

from ourvidz_gateway.cleaner import Cleaner
from ourvidz_gateway.database import Database
from ourvidz_serving.storage import ObjectStore
from support import fronts


def cleaner_of(database: Database, store: ObjectStore, **settings: Any) -> Cleaner:
    return Cleaner(database, store, fronts.settings(**settings))
