"""Reference images keep the name that their file had."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE reference_images ADD COLUMN filename text NOT NULL DEFAULT ''")
