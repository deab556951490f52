"""``pipeline doctor``: what is installed, and what to do about the rest."""

from __future__ import annotations

import click

from frostbit.pipeline.console import shown


@click.command()
@click.option("--install-lce", is_flag=True, help="Make LCE's own small environment.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead.")
def doctor(install_lce: bool, as_json: bool) -> None:
    """Say what is installed and what to do about the rest; make LCE's environment.

    Example: pipeline doctor --install-lce
    """
    from frostbit.pipeline.report.installation import findings, install, to_json

    if install_lce:
        install(lambda text: click.echo(shown(text), err=as_json))
    found = findings()
    click.echo(
        to_json(found) if as_json else "\n".join(shown(str(each)) for each in found), nl=not as_json
    )
