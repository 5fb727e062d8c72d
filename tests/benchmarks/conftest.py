"""Modules of the benchmarks can be imported, after all others: one has the name of a library, ``tables``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
