"""Errors that a user can act on. Each class carries the exit code of its kind."""

from __future__ import annotations


class BoltzgenError(Exception):
    """Base of all expected errors; its message is one line that says what is wrong and what to do."""

    exit_code = 1


class InputError(BoltzgenError):
    """Bad usage or bad input (exit 2)."""

    exit_code = 2


class UnsupportedError(BoltzgenError):
    """Valid input that is not supported, with the reason (exit 3)."""

    exit_code = 3


class ConflictError(BoltzgenError):
    """Output exists for other inputs, or a live run holds it (exit 4)."""

    exit_code = 4


class EnvironmentProblem(BoltzgenError):  # noqa: N818  # EnvironmentError is a builtin
    """No such device, a missing optional package, out of memory (exit 5)."""

    exit_code = 5


class StorageError(BoltzgenError):
    """Disk full, read-only or unreadable (exit 6)."""

    exit_code = 6


class GateError(BoltzgenError):
    """Results are written, but a quality gate that the user asked for is not met (exit 7)."""

    exit_code = 7


class Interrupted(BoltzgenError):  # noqa: N818  # a stop that was asked for is no error
    """Stopped with a checkpoint; the same command goes on. Exit 75 (time or SIGUSR1), 130 or 143."""

    def __init__(self, message: str, exit_code: int = 75) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class SlowPathWarning(RuntimeWarning):
    """Something works, but much more slowly than it could; the message is one line that says what to do."""
