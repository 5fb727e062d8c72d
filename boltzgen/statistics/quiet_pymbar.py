"""Importing pymbar without the notices that it logs on import: that JAX is missing, and that time series may be short.

The first is a matter of speed; the second is what :mod:`boltzgen.statistics.correlated` judges.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def quiet_import(name: str) -> ModuleType:
    """The module of a name such as ``pymbar.timeseries``."""
    with quiet():
        return importlib.import_module(name)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep all of pymbar's log below errors to itself, and leave its logger as it was."""
    logger = logging.getLogger("pymbar")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
