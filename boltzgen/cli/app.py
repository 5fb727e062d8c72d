"""The commands. Each checks what is its own, and says which function of the workflow does the work."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from boltzgen import __version__
from boltzgen.cli import options
from boltzgen.cli.command import command
from boltzgen.cli.errors import run_guarded
from boltzgen.cli.plan import STAGES, Plan, existing_run, new_run, prepared_or_new, seconds
from boltzgen.cli.progress import write
from boltzgen.errors import InputError

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a molecule to its equilibrium ensemble: independent, weighted samples without a trajectory.",
    epilog="Exit codes: 0 done; 1 a bug; 2 bad input; 3 not supported; 4 output in conflict; 5 environment; "
    "6 disk; 7 quality gate not met; 75 stopped with a checkpoint, repeat the command; 130 interrupted.",
)


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> int:
    """Options before any command."""
    if version:
        write(f"boltzgen-sampler {__version__}", sys.stdout)
    elif context.invoked_subcommand is None:
        write(context.get_help(), sys.stdout)
        return 2
    return 0


@command(
    app,
    *options.PREPARATION,
    options.PRESET,
    options.TIME_BUDGET,
    options.DEVICE,
    options.N_SAMPLES,
    options.REQUIRE_ESS,
    options.STRICT,
)
def run(
    source: options.Source = None,
    output: options.Output = None,
    smiles: options.Smiles = None,
    max_time: options.MaxTime = None,
    resume: options.Resume = True,
) -> Plan:
    """Do everything: prepare, train, sample, reweight and analyze."""
    directory = new_run(source, smiles, output)
    return Plan(
        directory,
        STAGES,
        lambda workflow, *rest: workflow.run_all(source, smiles, directory, *rest),
        resume=resume,
        max_time=seconds(max_time, "--max-time"),
        preview=lambda workflow, *rest: workflow.preview(source, smiles, directory, *rest, trains=True),
    )


@command(app, *options.PREPARATION)
def prepare(source: options.Source = None, output: options.Output = None, smiles: options.Smiles = None) -> Plan:
    """Read a molecule, and build its force field, coordinates and reference structure."""
    directory = new_run(source, smiles, output)
    return Plan(
        directory,
        ("prepare",),
        lambda workflow, *rest: workflow.prepare(source, smiles, directory, *rest),
        preview=lambda workflow, *rest: workflow.preview(source, smiles, directory, *rest, trains=False),
    )


@command(
    app,
    *options.PREPARATION,
    options.PRESET,
    options.TIME_BUDGET,
    options.MAX_ENERGIES,
    options.DEVICE,
    options.METHOD,
    options.DATA,
    options.SEED_BASINS,
)
def train(
    source: options.SourceOrRun = None,
    output: options.Output = None,
    smiles: options.Smiles = None,
    max_time: options.MaxTime = None,
    resume: options.Resume = True,
) -> Plan:
    """Train the flow, from energies alone or from frames too; a molecule is prepared first."""
    directory, stages = prepared_or_new(source, output, smiles)
    return Plan(
        directory,
        (*stages, "train"),
        lambda workflow, *rest: workflow.train(source, smiles, directory, *rest),
        resume=resume,
        max_time=seconds(max_time, "--max-time"),
        preview=lambda workflow, *rest: workflow.preview(source, smiles, directory, *rest, trains=True),
    )


@command(app, options.N_SAMPLES, options.DRAWN_AT, options.INNER, options.REFINE, options.SHARD)
def sample(run: options.Run = None) -> Plan:
    """Draw independent samples with their weights from a trained run."""
    directory = existing_run(run)
    return Plan(directory, ("sample",), lambda workflow, *rest: workflow.sample(directory, *rest))


@command(app, options.NEW_TEMPERATURES)
def reweight(run: options.Run = None) -> Plan:
    """Merge the samples, and weight them for one or more temperatures."""
    directory = existing_run(run)
    return Plan(directory, ("reweight",), lambda workflow, *rest: workflow.reweight(directory, *rest))


@command(app, options.PROBE, options.REFERENCE, options.REQUIRE_ESS, options.STRICT)
def analyze(run: options.Run = None) -> Plan:
    """Make free-energy surfaces, populations with errors, plots and the verdict, beside a reference if there is one."""
    directory = existing_run(run)
    return Plan(directory, ("analyze",), lambda workflow, *rest: workflow.analyze(directory, *rest))


@command(app, *options.PREPARATION, options.MD_TIME_BUDGET, options.MD_MAX_ENERGIES)
def md(source: options.SourceOrRun = None, output: options.Output = None, smiles: options.Smiles = None) -> Plan:
    """Simulate by replica exchange, as a reference for what the flow gives; a molecule is prepared first."""
    directory, stages = prepared_or_new(source, output, smiles)
    return Plan(
        directory,
        (*stages, "md"),
        lambda workflow, *rest: workflow.md(source, smiles, directory, *rest),
        preview=lambda workflow, *rest: workflow.preview_md(source, smiles, directory, *rest),
    )


@command(app)
def info(path: options.AnyPath = None) -> Plan:
    """Tell what a run directory or a file of it holds."""
    if path is None:
        raise InputError("no path is given. Give a run directory or one of its files.")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Check the path.")
    return Plan(path, (), lambda workflow, *_: workflow.info(path))


@command(app)
def selftest(quick: options.Quick = False) -> Plan:
    """Train and sample systems with exactly known answers, and compare: exit 7 if one is four standard errors off."""
    return Plan(None, (), lambda workflow, *rest: workflow.selftest(*rest, quick=quick))


def main() -> None:
    """Run the command line of this process and exit with its code."""
    arguments = sys.argv[1:]
    if "--no-color" in arguments:
        os.environ["NO_COLOR"] = "1"  # for the help text as well
    if isinstance(sys.stdout, io.TextIOWrapper):  # a closed one is None
        sys.stdout.reconfigure(errors="backslashreplace")
    cli = typer.main.get_command(app)
    code = run_guarded(
        lambda: cli.main(arguments, prog_name="boltzgen", standalone_mode=False) or 0,
        debug="--debug" in arguments,
        as_json="--json" in arguments,
    )
    sys.exit(code)
