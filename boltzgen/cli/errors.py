"""From exceptions to exit codes: one line on stderr, and never a traceback that nobody asked for."""

from __future__ import annotations

import datetime
import errno
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from boltzgen.cli.progress import printable, write
from boltzgen.errors import BoltzgenError

_STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def run_guarded(
    function: Callable[[], int],
    *,
    debug: bool = False,
    as_json: bool = False,
    log_path: Callable[[], Path | None] = lambda: None,
) -> int:
    """Call `function` and return its exit code, or the exit code of what it raised.

    Parameters
    ----------
    debug : show the traceback
    as_json : also print ``{"error": ..., "exit_code": ...}`` on stdout
    log_path : asked when something unforeseen happened; where its traceback is kept. None: a temporary file
    """
    try:
        return function()
    except (Exception, KeyboardInterrupt) as error:
        message, code = describe(error)
        if debug:
            traceback.print_exc()
        elif code == 1:
            message += f" The traceback is in {_save_traceback(log_path())}."
        message = printable(message, one_line=True)
        write(f"error: {message}", sys.stderr)
        if as_json:
            write(json.dumps({"error": message, "exit_code": code}), sys.stdout)
        return code


def describe(error: BaseException) -> tuple[str, int]:
    """One line of what is wrong, and the exit code of its kind."""
    if isinstance(error, BoltzgenError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted.", 130
    if _is_usage_error(error):
        return _usage(error), 2
    if _is_out_of_memory(error):
        return (
            "out of memory. When sampling, halve the batch (--set sample.batch_size=N); else take a larger machine.",
            5,
        )
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}. Free space, or choose another place with -o.", 6
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return (
            f"{str(error.filename)[:60]}…: too long for a file name. Give a shorter path, or a SMILES as --smiles.",
            2,
        )
    return f"unexpected {type(error).__name__}: {error}. This is a bug: please report it.", 1


def _is_usage_error(error: BaseException) -> bool:
    # Typer's base class for these has moved between its versions; this method has not.
    return hasattr(error, "format_message")


def _usage(error: BaseException) -> str:
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]  # see _is_usage_error
    context = getattr(error, "ctx", None)
    return f"{message}. See {context.command_path if context else 'boltzgen'} --help."


def _is_out_of_memory(error: BaseException) -> bool:
    # Torch has a class of its own on GPUs and a bare RuntimeError on CPUs; it must not be imported here.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def _save_traceback(log: Path | None) -> str:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        if log is None:
            handle, name = tempfile.mkstemp(prefix="boltzgen-", suffix=".log")
            os.close(handle)
            log = Path(name)
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{now}\n{traceback.format_exc()}\n")
    except OSError:
        return "no file, as none could be written: --debug shows it"
    return str(log)
