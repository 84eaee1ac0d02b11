"""`ourvidz credits …`."""

from __future__ import annotations

from typing import Annotated

import typer

from ourvidz.cli.commands.options import AsJson

app = typer.Typer(no_args_is_help=True, help="Look at credits; for operators: grant them.")


@app.command("show")
def show_credits(
    user: Annotated[
        str | None, typer.Argument(help="Whose credits, for operators. Default: your own.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what can be spent, and what is held for jobs that have not ended."""
    from ourvidz.cli.credits import show_credits as run

    run(user, as_json=as_json)


# A negative amount must not be taken for an option.
@app.command("grant", context_settings={"ignore_unknown_options": True})
def grant_credits(
    user: Annotated[str, typer.Argument(help="Who gets them: the `sub` of their tokens.", show_default=False)],
    amount: Annotated[int, typer.Argument(help="How many; negative takes them away.", show_default=False)],
    note: Annotated[str, typer.Option(help="Why, kept in the ledger.", show_default=False)] = "",
) -> None:
    """Give a user credits, or take some away, and show what they have then. For operators."""
    from ourvidz.cli.credits import grant_credits as run

    run(user, amount, note=note)
