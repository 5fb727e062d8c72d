"""What a long computation tells while it runs; the computation knows this protocol, not the terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Progress:
    """A moment in a stage.

    Attributes
    ----------
    stage : name of the stage, such as ``train``
    fraction : done part, 0 to 1
    seconds_left : estimate, or None when unknown
    fields : what is worth seeing, in order of worth. An int is a counter, whose rate may be shown;
        a measured value is a float.
    """

    stage: str
    fraction: float
    seconds_left: float | None = None
    fields: dict[str, float | int | str] = field(default_factory=dict)


class Reporter(Protocol):
    """Where a computation reports to. Calls are cheap: the reporter decides how often it shows anything."""

    def info(self, message: str) -> None:
        """Tell one line of fact."""

    def warn(self, message: str) -> None:
        """Tell one line that the user should not miss."""

    def progress(self, progress: Progress) -> None:
        """Tell how far the stage is."""

    def done(self, stage: str) -> None:
        """Tell that the stage has ended."""


class SilentReporter:
    """Says nothing: for library use and tests."""

    def info(self, message: str) -> None:
        """Ignore the message."""

    def warn(self, message: str) -> None:
        """Ignore the message."""

    def progress(self, progress: Progress) -> None:
        """Ignore the progress."""

    def done(self, stage: str) -> None:
        """Ignore the end of the stage."""
