"""Looking at credits, and granting them."""

from __future__ import annotations

import typer

from ourvidz.admin_client import AdminClient
from ourvidz.cli.lists import show_json
from ourvidz.client import Client
from ourvidz.credits import Credits


def show_credits(user_id: str | None, *, as_json: bool) -> None:
    """Print a user's credits, or the caller's own."""
    if user_id is None:
        with Client.from_environment() as client:
            found = client.credits()
    else:
        with AdminClient.from_environment() as admin:
            found = admin.get_credits(user_id)
    if as_json:
        show_json({"available": found.available, "reserved": found.reserved})
    else:
        _show(found)


def grant_credits(user_id: str, amount: int, *, note: str) -> None:
    """Grant credits and print what the user has then."""
    with AdminClient.from_environment() as admin:
        _show(admin.grant_credits(user_id, amount, note=note))


def _show(found: Credits) -> None:
    typer.echo(f"available {found.available}")
    typer.echo(f"reserved  {found.reserved}")
