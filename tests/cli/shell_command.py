"""The command as a shell runs it."""

from __future__ import annotations

import subprocess
import sys


def shell(*arguments, cwd):
    command = [sys.executable, "-m", "boltzgen", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
