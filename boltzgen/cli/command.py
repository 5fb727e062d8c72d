"""What all commands share: common flags, the resolved configuration, and how a result leaves the program."""

from __future__ import annotations

import inspect
import json
import math
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from boltzgen.cli.errors import run_guarded
from boltzgen.cli.options import COMMON, Flag
from boltzgen.cli.plan import Plan
from boltzgen.cli.progress import RichReporter, printable, write
from boltzgen.errors import InputError, SlowPathWarning

if TYPE_CHECKING:
    from boltzgen.config import Config
    from boltzgen.workflow import Context, Result

Planner = Callable[..., Plan]


def command(app: typer.Typer, *flags: Flag) -> Callable[[Planner], Planner]:
    """Register a function as a command with its own arguments, these flags and the common ones.

    The function receives its own arguments, checks them, and returns a `Plan`; its docstring
    is the help text.
    """

    def register(planner: Planner) -> Planner:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(planner, eval_str=True).parameters.values()
        ]
        shared = (*flags, *COMMON)

        def run_command(**values: Any) -> int:
            arguments = {parameter.name: values.pop(parameter.name) for parameter in own}
            settings = {
                flag.key: values[flag.name] for flag in shared if flag.key and values[flag.name] not in (None, [])
            }
            invocation = _Invocation(planner, arguments, settings, values)
            return run_guarded(
                invocation.execute,
                debug=values["debug"],
                as_json=values["json"],
                log_path=invocation.log_path,
            )

        signature = inspect.Signature([*own, *(flag.parameter() for flag in shared)])
        run_command.__signature__ = signature  # type: ignore[attr-defined]  # what Typer reads
        run_command.__annotations__ = {}
        app.command(planner.__name__, help=inspect.getdoc(planner))(run_command)
        return planner

    return register


class _Invocation:
    """One command line: the planner with its arguments, the settings from flags, the common options."""

    def __init__(
        self,
        planner: Planner,
        arguments: Mapping[str, Any],
        settings: dict[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        self._planner = planner
        self._arguments = arguments
        self._settings = settings
        self._options = options
        self._run: Path | None = None

    def log_path(self) -> Path | None:
        """Where a traceback belongs: into the run directory, if there is one."""
        return self._run / "log.txt" if self._run and self._run.is_dir() else None

    def execute(self) -> int:
        """Resolve, check, and unless a dry run was asked for, do it. Returns the exit code."""
        from boltzgen.config import dump_config, resolve_config

        config = resolve_config(self._options["config"], self._options["settings"] or [], self._settings)
        if self._options["dump_config"]:
            self._print({"config": config.model_dump(mode="json")}, dump_config(config).rstrip("\n"))
            return 0
        plan = self._planner(**self._arguments)
        self._run = plan.run
        late = [key for key in self._settings if key.startswith("prepare.")]
        if late and "prepare" not in plan.stages:
            raise InputError(f"{plan.run}: is prepared already, {late[0]} cannot change. Prepare a new run.")
        if self._options["dry_run"]:
            self._show(plan, config)
            return 0
        return self._perform(plan, config)

    def _show(self, plan: Plan, config: Config) -> None:
        from boltzgen.config import dump_config

        preview = self._work(plan, plan.preview, config) if plan.preview else None
        files = plan.files(config)
        record = {"dry_run": True, "run": plan.run, "files": files, "config": config.model_dump(mode="json")}
        text = printable(preview.text) if preview else dump_config(config).rstrip("\n")
        listing = ", ".join(files) or "nothing"
        self._print(
            {**record, **(preview.summary if preview else {})},
            f"{text}\nwould write   {listing}" if preview else f"{text}\n# would write, where not there yet: {listing}",
        )

    def _perform(self, plan: Plan, config: Config) -> int:
        result = self._work(plan, plan.call, config)
        status = {
            "command": result.command,
            "run": result.run,
            "skipped": result.skipped,
            "exit_code": result.exit_code,
        }
        self._print({**status, **result.summary}, "" if self._options["quiet"] else printable(result.text))
        return result.exit_code

    def _work(self, plan: Plan, call: Callable[[Any, Config, Context], Result], config: Config) -> Result:
        from boltzgen.config import dump_config

        options = self._options
        _one_thread_per_operation()
        interval = 0.0 if options["verbose"] else 5.0
        with RichReporter(quiet=options["quiet"], color=not options["no_color"], interval=interval) as reporter:
            _warn_of_namesake(reporter)
            _warn_of_slow_paths(reporter)
            if options["verbose"]:
                reporter.info(dump_config(config))
            from boltzgen import workflow  # imported late: torch takes seconds, and reads the thread count
            from boltzgen.interrupts import stop_on_signals

            context = workflow.Context(
                reporter=reporter,
                force=options["force"],
                command_line=shlex.join(["boltzgen", *sys.argv[1:]]),
                resume=plan.resume,
                max_time=plan.max_time,
            )
            with stop_on_signals():
                return call(workflow, config, context)

    def _print(self, record: Mapping[str, Any], text: str) -> None:
        """With --json the record on stdout and the text on stderr; otherwise the text on stdout."""
        if self._options["json"]:
            write(json.dumps(_jsonable(record)), sys.stdout)
        if text:
            write(text, sys.stderr if self._options["json"] else sys.stdout)


def _one_thread_per_operation() -> None:
    """For the thread pools that read their size once, when they are first imported.

    Training spreads parts of a batch over ``--threads``. Threads inside operations beside that, or beside another busy
    process, would wait for each other most of the time.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"):
        os.environ[name] = "1"


def _warn_of_namesake(reporter: RichReporter) -> None:
    try:
        version = metadata.version("boltzgen")
    except metadata.PackageNotFoundError:
        return
    reporter.warn(
        f"another distribution named boltzgen ({version}) is installed beside boltzgen-sampler, and both "
        "are imported by that name. Install them in separate environments."
    )


def _warn_of_slow_paths(reporter: RichReporter) -> None:
    default = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, SlowPathWarning):
            reporter.warn(str(message))
        else:
            default(message, category, filename, lineno, file, line)

    warnings.showwarning = show


def _jsonable(value: Any) -> Any:
    """JSON has neither infinity nor NaN: they become null. Paths become text."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
