"""The command line, as a whole: each command's options stand here or, for groups, in `commands`.

What a command does is in the module named like it, which only the command imports, so that `--help` and shell
completion stay quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ourvidz.cli.commands import credits, files, jobs, webhooks  # noqa: A004  # the group's name
from ourvidz.cli.commands.options import AsJson, DataDir
from ourvidz.errors import OurVidzError
from ourvidz.local.engine_servers import EngineServer
from ourvidz.references import ReferenceType


class _Readable(TyperGroup):
    """Shows what went wrong as one line on stderr; everything that we did not foresee keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OurVidzError as error:
            from ourvidz.cli.failure import describe

            typer.echo(f"Error: {describe(error)}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Readable,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold tokens
    help="Pictures and clips from a prompt. Commands that ask a server read OURVIDZ_GRPC (127.0.0.1:50051), "
    "OURVIDZ_URL (http://127.0.0.1:8000) and OURVIDZ_TOKEN.",
)
app.add_typer(jobs.app, name="jobs")
app.add_typer(files.assets_app, name="assets")
app.add_typer(files.references_app, name="references")
app.add_typer(credits.app, name="credits")
app.add_typer(webhooks.app, name="webhooks")

Out = Annotated[Path, typer.Option(help="The folder for the files; made if it is not there.")]


@app.command()
def up(
    data_dir: DataDir = None,
    rest_port: Annotated[int, typer.Option(help="The port of the REST API.", min=1, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(help="The port of the gRPC API.", min=1, max=65535)] = 50051,
    only: Annotated[
        list[EngineServer] | None,
        typer.Option(help="Run only this server with a model, where not all fit; may be given again."),
    ] = None,
) -> None:
    """Run the whole service on this machine until Ctrl-C: database, storage, renderers, enhancer, gateway.

    Needs the package's extra `local`. PostgreSQL will not run as root: started by root, it runs as
    a system user `pgserver`, made on first use, with its files in /var/lib/ourvidz.
    """
    from ourvidz.cli.up import run_until_stopped

    run_until_stopped(data_dir, rest_port=rest_port, grpc_port=grpc_port, servers=only or list(EngineServer))


@app.command()
def token(
    user: Annotated[str, typer.Argument(help="Any name: the token's `sub`.", show_default=False)],
    hours: Annotated[float, typer.Option(help="How long it is valid, at most ten years.", min=0, max=87_600)] = 24,
    operator: Annotated[bool, typer.Option("--operator", help="Let it do what only operators may.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Print a token for the local stack, and nothing else."""
    from ourvidz.local.folder import DataFolder
    from ourvidz.local.secrets import Secrets, user_token

    typer.echo(user_token(Secrets.read(DataFolder.at(data_dir)), user, hours=hours, operator=operator))


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What is to be seen.", show_default=False)],
    job_type: Annotated[str, typer.Option("--type", help="The job type.")] = "sdxl_image_fast",
    count: Annotated[int | None, typer.Option(help="How many images: 1, 3 or 6 for SDXL types.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the same pictures again: 0 to 4294967295.")] = None,
    negative: Annotated[str, typer.Option(help="What is not to be seen.", show_default=False)] = "",
    reference: Annotated[
        str, typer.Option(help="A picture that SDXL images follow: a file or a URL.", show_default=False)
    ] = "",
    reference_type: Annotated[
        ReferenceType | None, typer.Option(help="In what they follow it: style if not set.")
    ] = None,
    start_frame: Annotated[
        str, typer.Option(help="The picture that a clip starts with: a file or a URL.", show_default=False)
    ] = "",
    end_frame: Annotated[
        str, typer.Option(help="The picture that a clip ends with: a file or a URL.", show_default=False)
    ] = "",
    strength: Annotated[float | None, typer.Option(help="How closely pictures are followed, 0 to 1.")] = None,
    out: Out = Path(),
) -> None:
    """Make pictures or a clip from a prompt, show the progress, save the files.

    The files are named after the job's id and their number in it; a file that is there already is never overwritten.
    """
    from ourvidz.cli.generate import References
    from ourvidz.cli.generate import generate as run

    run(
        prompt,
        job_type=job_type,
        image_count=count,
        seed=seed,
        negative_prompt=negative,
        references=References(reference, reference_type, start_frame, end_frame, strength),
        folder=out,
    )


@app.command("queue")
def show_queues(as_json: AsJson = False) -> None:
    """Show how full the queues are."""
    from ourvidz.cli.queues import show_queues as run

    run(as_json=as_json)


def main() -> None:
    """Run the command line; the program `ourvidz`."""
    app(prog_name="ourvidz")
