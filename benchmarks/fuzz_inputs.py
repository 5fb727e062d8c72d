"""Feed damaged files and SMILES to the readers: each must be refused in one line, or give a molecule that is sound.

    OMP_NUM_THREADS=1 python benchmarks/fuzz_inputs.py                # a whole run: 6,400 inputs of five kinds
    OMP_NUM_THREADS=1 python benchmarks/fuzz_inputs.py --kind smiles --start 1000 --count 500     # a piece of them

Input k of a kind depends on ``--seed`` and k alone, so that pieces add up to the whole and a failure can be repeated.
A worker process does what ``boltzgen prepare`` does before it fits coordinates: it reads, builds, and checks the energy
and the strain; it is replaced when it dies or exceeds the time limit. Outcomes:

exit 2, exit 3, …
    Refused with that code and one printable line.
accepted
    The energy is finite and at most 1,000 kJ/mol above the minimum that lies downhill, as every accepted input must,
    by a minimisation of its own.
strained, not finite
    Accepted, and one of the two does not hold.
crash
    Any other exception, a RuntimeWarning (such as NumPy's of NaN), a message that is not one printable line, or a
    worker that died.
hang
    No answer within ``--limit`` seconds.

All but the first two kinds are failures: they are printed with their number, the input is kept under ``--save``, and
the exit code is 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import tempfile
import traceback
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from mutations import COUNTS, Input, make_input

LARGEST_STRAIN = 1000.0
"""kJ/mol above the minimum."""


def outcome(kind: str, path: Path, given: Input) -> tuple[str, str]:
    """What becomes of one input, and why."""
    import torch

    from boltzgen.chemistry.build import build
    from boltzgen.chemistry.interpret import Reading
    from boltzgen.chemistry.read import read_input
    from boltzgen.dynamics.minimise import minimise
    from boltzgen.errors import BoltzgenError
    from boltzgen.progress import SilentReporter
    from boltzgen.workflow.energy import checked_energy

    try:
        template = read_input(smiles=given.template) if given.template else None
        smiles = given.data.decode("utf-8", "surrogatepass") if kind == "smiles" else None
        source = read_input(smiles=smiles) if smiles is not None else read_input(path)
        chemical = build(source, reading=Reading(template=template, **given.flags))
        potential = checked_energy(chemical, 0, SilentReporter()).potential
    except BoltzgenError as error:
        message = str(error).replace(str(path), "FILE")
        return (f"exit {error.exit_code}" if message.isprintable() and message else "crash"), message
    x = torch.as_tensor(chemical.positions, dtype=torch.float64)[..., None]
    energy = float(potential.batch_last(x))
    if not np.isfinite(energy):
        return "not finite", f"{chemical.molecule.smiles}: {energy}"
    strain = energy - float(minimise(potential, x, tolerance=50.0, max_steps=500).energy)
    text = f"{chemical.molecule.smiles}: {strain:.0f} kJ/mol above its minimum"
    return ("accepted" if strain <= LARGEST_STRAIN else "strained"), text


def work(connection: Connection) -> None:
    """Answer requests ``(kind, path, input)`` until the other side closes."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("error", RuntimeWarning)
    connection.send("ready")
    while True:
        try:
            kind, path, given = connection.recv()
        except EOFError:
            return
        try:
            connection.send(outcome(kind, path, given))
        except Exception:  # a crash is what is looked for
            connection.send(("crash", traceback.format_exc()))


class Worker:
    """A process that judges inputs; a new one takes over when it hangs or dies."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=work, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._connection.recv()

    def judge(self, kind: str, path: Path, given: Input) -> tuple[str, str]:
        self._connection.send((kind, path, given))
        try:
            if self._connection.poll(self.limit):
                return self._connection.recv()
            result = "hang", f"no answer in {self.limit:g} s"
        except EOFError:
            self._process.join()
            result = "crash", f"the process ended with {self._process.exitcode}"
        self._process.kill()
        self._start()
        return result


def brief(why: str) -> str:
    """A traceback as its last place and its message; other texts as they are."""
    if not why.startswith("Traceback"):
        return why
    places = re.findall(r'File "([^"]+)", line (\d+)', why)
    inside = [f"{Path(file).name}:{line}" for file, line in places if "boltzgen" in file] or ["?"]
    return f"{why.strip().splitlines()[-1]} ({inside[-1]})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=[*COUNTS, "all"], default="all")
    parser.add_argument("--start", type=int, default=0, metavar="K", help="number of the first input of a kind")
    parser.add_argument("--count", type=int, help="how many of a kind (default: a whole run)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that one input may take")
    parser.add_argument("--save", type=Path, default=Path("fuzz.run"), help="folder for the inputs that fail")
    parser.add_argument("--reasons", action="store_true", help="print how often each reason was given, too")
    arguments = parser.parse_args()
    worker, failed = Worker(arguments.limit), False
    for kind in COUNTS if arguments.kind == "all" else (arguments.kind,):
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        end = arguments.start + (arguments.count if arguments.count is not None else COUNTS[kind])
        for k in range(arguments.start, end):
            given = make_input(kind, arguments.seed, k)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"input.{kind}"
                path.write_bytes(given.data)
                result, why = worker.judge(kind, path, given)
            counts[result] += 1
            if result != "accepted":
                reasons[f"{result}: " + re.sub(r"'[^']*'|[0-9.]+", "…", brief(why))[:110]] += 1
            if result in ("crash", "hang", "strained", "not finite"):
                failed = True
                arguments.save.mkdir(parents=True, exist_ok=True)
                saved = arguments.save / f"{arguments.seed}-{k:05d}.{kind}"
                saved.write_bytes(given.data)
                beside = f"--smiles {given.template}, {given.flags}\n{why}"
                saved.with_suffix(f".{kind}.txt").write_text(beside, "utf-8", "backslashreplace")
                print(ascii(f"{kind} {k} (seed {arguments.seed}): {result}: {brief(why)}").strip("'\""), flush=True)
        print(f"{kind} {arguments.start}–{end - 1}: " + ", ".join(f"{n:,} {what}" for what, n in counts.most_common()))
        if arguments.reasons:
            print("\n".join(f"{n:6d} {text}" for text, n in reasons.most_common()))
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
