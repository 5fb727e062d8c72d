"""The table of what training achieves: prepare, train, check against replica exchange, report.

    python benchmarks/training.py prepare table ala_ff96 ala3
    python benchmarks/training.py train table/ala3.run --energies 5e6 --seed 0
    python benchmarks/training.py reference table/ala3.run --minutes 10
    python benchmarks/training.py check table/ala3.run
    python benchmarks/training.py report table
    python benchmarks/training.py ablate table/ala_ff96.run --seconds 120 --seeds 0 1

``train`` goes through the command of the same name, draws fresh samples in float64 with another seed, and appends a
line to ``table/results.jsonl``; the flow and the samples stay in ``table/trained``, so that ``check`` trains nothing.
``reference`` writes ``table/ala3.reference.npz``, which ``compare.py`` reads too.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from ablation import VARIANTS, ablate
from checks import check
from exchange import Ladders, exchange, reference_of
from systems import SYSTEMS, prepare_system
from tables import ablation_table, plot, table
from trained import Folder, train_and_judge

from boltzgen.config import resolve_config

CHECK_SEED = 1_000_003
"""Of the replica exchange of the same time, far from that of the reference."""


def run_prepare(options: argparse.Namespace) -> None:
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.systems or SYSTEMS:
        prepare_system(name, options.folder)


def run_train(options: argparse.Namespace) -> None:
    flags = {
        "seed": options.seed,
        "threads": options.threads,
        **({"train.max_energies": options.energies} if options.energies else {}),
        **({"train.time_budget": options.seconds} if options.seconds else {}),
        **({"train.preset": options.preset} if options.preset else {}),
    }
    config = resolve_config(None, options.set, flags)
    label = options.label or "-".join(options.set).replace("train.", "") or "default"
    record = train_and_judge(options.run, label, config, options.samples)
    print(
        f"{record['name']}: {record['energies']:.2e} energies, {record['training_seconds']:.0f} s, ESS "
        f"{100 * record['ess']:.1f} %, marginal {100 * record['marginal_ess']:.1f} %, gap {record['gap']:.3f}, "
        f"k {record['khat']:.2f}, log Z {record['log_z']:.4f}"
    )


def run_reference(options: argparse.Namespace) -> None:
    ladders = Ladders(options.ladders, options.rungs, options.highest, options.timestep)
    trajectory = exchange(options.run, ladders, 60.0 * options.minutes, options.seed, options.threads, options.frames)
    reference = reference_of(options.run, trajectory)
    path = options.output or Folder.of(options.run).reference(options.run.stem)
    trajectory.save(path, reference)
    print(f"{trajectory.nanoseconds:.1f} ns in all, {trajectory.energies:.2e} energies, {trajectory.seconds:.0f} s")
    print(f"{len(reference.outside)} ladders of {reference.outside.shape[1]} frames each: {path}")
    print(reference.left_out())
    print("swap acceptance " + " ".join(f"{share:.2f}" for share in trajectory.acceptance))
    print(f"round trips through the temperatures: {trajectory.round_trips}; failed walkers: {trajectory.n_failed}")


def run_check(options: argparse.Namespace) -> None:
    folder = Folder.of(options.run)
    for training in folder.records("training").values():
        if training["system"] == options.run.stem and options.label in (None, training["label"]):
            ladders = Ladders(options.ladders) if options.same_time else None
            record = check(folder, training, ladders, CHECK_SEED, options.samples)
            folder.append(record)
            lost = record["lost"]
            tv, smoothed = record["tv"], record["smoothed_tv"]
            print(
                f"{record['name']}: {lost['n_lost']} of {lost['n_states']} states lost, TV {tv['value']:.4f} (floor "
                f"{tv['floor']:.4f}), smoothed {smoothed['value']:.4f} ({smoothed['floor']:.4f})"
            )


def run_report(options: argparse.Namespace) -> None:
    folder = Folder(options.folder)
    print(f"{table(folder)}\n\n{plot(folder)}")


def run_ablate(options: argparse.Namespace) -> None:
    rows = []
    energies = int(float(options.energies)) if options.energies else None
    limits = (energies, options.seconds, options.seeds, options.threads, options.samples)
    for row in ablate(options.run, options.variants, *limits):
        rows.append(row)
        print(f"{row[0]}, seed {row[1]}: ESS {100 * row[2]['ess']:.1f} %", file=sys.stderr, flush=True)
    print(ablation_table(rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, call: Callable[[argparse.Namespace], None], of: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name)
        found.set_defaults(call=call)
        found.add_argument(of, type=Path, metavar="DIR" if of == "folder" else "RUN")
        return found

    prepare = command("prepare", run_prepare, "folder")
    prepare.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"of {', '.join(SYSTEMS)}")
    train = command("train", run_train, "run")
    budget = train.add_mutually_exclusive_group()
    budget.add_argument("--energies", help="5e6")
    budget.add_argument("--seconds", help="900, 15m")
    budget.add_argument("--preset")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="train.method=energy")
    train.add_argument("--label", help="name of these settings in the table")
    reference = command("reference", run_reference, "run")
    reference.add_argument("--minutes", type=float, default=10.0)
    reference.add_argument("--seed", type=int, default=0)
    reference.add_argument("--rungs", type=int, help="temperatures; default √atoms, at least 8")
    reference.add_argument("--highest", type=float, default=Ladders.highest, help="K")
    reference.add_argument("--timestep", type=float, default=Ladders.timestep, help="fs")
    reference.add_argument("--frames", type=int, default=100_000, help="that are kept at most")
    reference.add_argument("-o", "--output", type=Path)
    checks = command("check", run_check, "run")
    checks.add_argument("--label", help="only trainings of this label")
    checks.add_argument("--samples", type=int, help="fresh ones, for the histograms")
    checks.add_argument("--no-same-time", dest="same_time", action="store_false", help="no exchange of the same time")
    command("report", run_report, "folder")
    ablation = command("ablate", run_ablate, "run")
    limit = ablation.add_mutually_exclusive_group(required=True)
    limit.add_argument("--seconds", type=float, help="of each training")
    limit.add_argument("--energies", help="of each training, where the machine is not quiet")
    ablation.add_argument("--seeds", type=int, nargs="+", default=[0])
    ablation.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    for some in (reference, checks):
        some.add_argument("--ladders", type=int, default=Ladders.count, help="independent ones")
    for some in (train, ablation):
        some.add_argument("--samples", type=int, default=100_000)
    for some in (train, reference, ablation):
        some.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    print(f"python {shlex.join(sys.argv)}", flush=True)
    options.call(options)


if __name__ == "__main__":
    main()
