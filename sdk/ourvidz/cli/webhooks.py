"""Looking after webhooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from ourvidz.admin_client import AdminClient
from ourvidz.cli.lists import iso, one_line, show_json, show_list, when
from ourvidz.deliveries import Delivery, DeliveryState
from ourvidz.errors import LocalStackError
from ourvidz.local.folder import DataFolder
from ourvidz.local.secrets import Secrets

COLUMNS = ("id", "state", "tries", "status", "created", "next try", "job", "url", "error")


def list_deliveries(
    limit: int, *, state: DeliveryState | None, job_id: str | None, user_id: str | None, as_json: bool
) -> None:
    """Print the newest webhook deliveries."""
    with AdminClient.from_environment() as admin:
        deliveries = admin.list_deliveries(page_size=limit, state=state, job_id=job_id, user_id=user_id)
    if as_json:
        show_json([_json(delivery) for delivery in deliveries])
    else:
        show_list(COLUMNS, [_row(delivery) for delivery in deliveries])


def retry_delivery(delivery_id: str) -> None:
    """Send a webhook again and print where it stands then."""
    with AdminClient.from_environment() as admin:
        typer.echo(admin.retry_delivery(delivery_id).state)


def show_secret(data_dir: Path | None) -> None:
    """Print the secret of a local stack. Raises `LocalStackError` if it has none yet."""
    folder = DataFolder.at(data_dir)
    secret = Secrets.read(folder).webhook
    if not secret:
        raise LocalStackError(f"The stack on {folder.path} signed no webhooks yet: run `ourvidz up` first")
    typer.echo(secret)


def _row(delivery: Delivery) -> tuple[str, ...]:
    return (
        delivery.id,
        delivery.state,
        str(delivery.attempt_count),
        str(delivery.last_http_status or ""),
        when(delivery.created_at) or "",
        when(delivery.next_attempt_at) or "",
        delivery.job_id,
        delivery.url,
        one_line(delivery.last_error),
    )


def _json(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "job_id": delivery.job_id,
        "user_id": delivery.user_id,
        "url": delivery.url,
        "state": delivery.state,
        "attempt_count": delivery.attempt_count,
        "last_http_status": delivery.last_http_status,
        "last_error": delivery.last_error,
        "created_at": iso(delivery.created_at),
        "last_attempt_at": iso(delivery.last_attempt_at),
        "next_attempt_at": iso(delivery.next_attempt_at),
    }
