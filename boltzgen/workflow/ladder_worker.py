"""What a process of the simulation runs: it receives a job of ladders, and answers with rounds done and the result.

Started as a script, by path, so that nothing of the parent is imported again and a script needs no main guard. A
connection carries the paths of modules, and then what :func:`boltzgen.workflow.processes.work` says.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from multiprocessing.connection import Connection


def main(descriptor: int) -> None:
    """Serve on an inherited file descriptor until the job is done, or the other end is gone."""
    with suppress(EOFError, ConnectionError):
        connection = Connection(descriptor)
        sys.path[:] = connection.recv()
        from boltzgen.workflow.processes import work

        work(connection)


if __name__ == "__main__":
    main(int(sys.argv[1]))
