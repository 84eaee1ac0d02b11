"""`ourvidz webhooks …`."""

from __future__ import annotations

from typing import Annotated

import typer

from ourvidz.cli.commands.options import AsJson, DataDir, Limit, User
from ourvidz.deliveries import DeliveryState

app = typer.Typer(no_args_is_help=True, help="Look after webhooks, for operators.")


@app.command("list")
def list_deliveries(
    limit: Limit = 20,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.", show_default=False)] = None,
    job: Annotated[str | None, typer.Option(help="Only those that tell of this job.", show_default=False)] = None,
    user: User = None,
    as_json: AsJson = False,
) -> None:
    """List webhooks on their way, delivered ones and those that were given up, newest first."""
    from ourvidz.cli.webhooks import list_deliveries as run

    run(limit, state=state, job_id=job, user_id=user, as_json=as_json)


@app.command("retry")
def retry_delivery(
    delivery_id: Annotated[str, typer.Argument(help="The delivery's id, its `webhook-id`.", show_default=False)],
) -> None:
    """Send a webhook again, soon and under the id that it had."""
    from ourvidz.cli.webhooks import retry_delivery as run

    run(delivery_id)


@app.command("secret")
def show_secret(data_dir: DataDir = None) -> None:
    """Print what the local stack signs webhooks with, and nothing else; OURVIDZ_WEBHOOK_SECRET takes its place."""
    from ourvidz.cli.webhooks import show_secret as run

    run(data_dir)
