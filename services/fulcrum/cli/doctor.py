"""`fulcrum doctor`: what is missing on this machine, and how to get it."""

import os

import typer
from rich.table import Table

from fulcrum.cli import options
from fulcrum.cli.output import emit_json, out
from fulcrum.cli.up import DataDir

_STYLES = {"ok": "green", "notice": "yellow", "problem": "bold red"}


def doctor(data_dir: DataDir = None, json: options.Json = False) -> None:
    """Look at packages, device, memory, Redis, data folder and port; exit status 1 when something is missing."""
    from fulcrum.local.doctor import examine, versions
    from fulcrum.local.settings import read_settings

    findings = examine(read_settings(data_dir=data_dir), os.environ)
    well = all(f.verdict != "problem" for f in findings)
    if json:
        emit_json({"well": well, "findings": findings, "versions": versions()})
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in findings:
            remedy = f"\n-> {finding.remedy}" if finding.remedy else ""
            text = (finding.message + remedy).replace("[", r"\[")
            table.add_row(f"[{_STYLES[finding.verdict]}]{finding.verdict}[/]", finding.name, text)
        out.print(table)
        out.print("\nAll is there." if well else "\nSomething is missing: see the lines marked 'problem'.")
    if not well:
        raise typer.Exit(1)
