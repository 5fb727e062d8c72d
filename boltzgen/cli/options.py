"""The flags of all commands, as data: a flag that sets a configuration key knows which one.

No value is checked here: `boltzgen.config` does that, in the same words for a file, --set and a flag.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

MOLECULE, TRAINING, SAMPLING, GATES = "Molecule", "Training", "Samples", "Quality gates (exit 7 if not met)"
SIMULATION, REFERENCES = "Simulation", "Coverage"
CONFIGURATION, BEHAVIOUR = "Configuration", "Behaviour"


@dataclass(frozen=True)
class Flag:
    """One option. `key` is the configuration key that it sets, if any; `default` is what the help shows."""

    name: str
    flags: tuple[str, ...]
    help: str
    panel: str
    key: str | None = None
    metavar: str | None = None
    default: str | None = None
    kind: Any = str

    def parameter(self) -> inspect.Parameter:
        """The option as a parameter of a command."""
        switch = self.kind is bool
        start = False if switch and self.key is None else None
        option = typer.Option(
            start,
            *self.flags,
            help=self.help + (f" (default: {self.default})" if self.default else ""),
            rich_help_panel=self.panel,
            metavar=" " if switch else self.metavar,
            show_default=False,
        )
        kind = self.kind | None if start is None else self.kind
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


FORCE_FIELD = Flag(
    "force_field",
    ("--ff",),
    "auto (ff14SB for capped peptides, else MMFF94s), an AMBER name, MMFF94, MMFF94s, gaff-…, openff-… or espaloma-….",
    MOLECULE,
    key="prepare.force_field",
    metavar="NAME",
    default="auto",
)
SOLVENT = Flag(
    "solvent",
    ("--solvent",),
    "auto (obc2 with AMBER, else vacuum), vacuum, hct, obc1, obc2, gbn or gbn2.",
    MOLECULE,
    key="prepare.solvent",
    metavar="MODEL",
    default="auto",
)
SYSTEM = Flag(
    "system",
    ("--system",),
    "OpenMM System as XML, in place of a force field; its atoms are those of the molecule, in the same order.",
    MOLECULE,
    key="prepare.system",
    metavar="FILE",
)
CHARGE = Flag(
    "charge",
    ("--charge",),
    "Net charge, to find the bond orders of a PDB or mmCIF file that is no peptide.",
    MOLECULE,
    key="prepare.charge",
    metavar="N",
)
MODEL = Flag(
    "model",
    ("--model",),
    "Which model or molecule of a file with several, from 1.",
    MOLECULE,
    key="prepare.model",
    metavar="N",
)
ADD_HYDROGENS = Flag(
    "add_hydrogens",
    ("--add-hydrogens",),
    "Complete a structure that lacks hydrogens.",
    MOLECULE,
    key="prepare.add_hydrogens",
    kind=bool,
)
STEREO = Flag(
    "stereo",
    ("--stereo",),
    "declared: undefined stereo is refused; pick: it is drawn with the seed, and recorded.",
    MOLECULE,
    key="prepare.stereo",
    metavar="RULE",
    default="declared",
)
LARGEST_FRAGMENT = Flag(
    "largest_fragment",
    ("--largest-fragment",),
    "Of several molecules take the largest.",
    MOLECULE,
    key="prepare.largest_fragment",
    kind=bool,
)
TEMPERATURE = Flag(
    "temperature",
    ("--temperature",),
    "Temperature of the ensemble, in kelvin.",
    MOLECULE,
    key="prepare.temperature",
    metavar="K",
    default="300.0",
)
PREPARATION = (
    *(FORCE_FIELD, SOLVENT, SYSTEM, TEMPERATURE, CHARGE, MODEL),
    *(ADD_HYDROGENS, STEREO, LARGEST_FRAGMENT),
)
"""What every command that prepares a molecule takes."""

PRESET = Flag(
    "preset",
    ("--preset",),
    "Length of training: quick, standard or thorough.",
    TRAINING,
    key="train.preset",
    metavar="NAME",
    default="standard",
)
TIME_BUDGET = Flag(
    "time_budget",
    ("--time-budget",),
    "Fit the training to this time (90s, 30m, 01:30:00).",
    TRAINING,
    key="train.time_budget",
    metavar="TIME",
)
MAX_ENERGIES = Flag(
    "max_energies",
    ("--max-energies",),
    "Fit the training to this number of energy evaluations (5e6).",
    TRAINING,
    key="train.max_energies",
    metavar="N",
)
DEVICE = Flag(
    "device",
    ("--device",),
    "auto, cpu, mps, cuda or cuda:N.",
    TRAINING,
    key="train.device",
    metavar="NAME",
    default="auto",
)
METHOD = Flag(
    "method",
    ("--method",),
    "annealed (energies, cooling), energy (plain reverse KL, loses modes) or data (frames alone).",
    TRAINING,
    key="train.method",
    metavar="NAME",
    default="annealed",
)
DATA = Flag(
    "data",
    ("--data",),
    "Frames of the ensemble to learn from (.h5, .dcd, .xtc, .pdb); may be repeated.",
    TRAINING,
    key="train.data",
    metavar="FILE",
    kind=list[str],
)
SEED_BASINS = Flag(
    "seed_basins",
    ("--seed-basins",),
    "Go on with a finished training, led to the states that analyze found lost; as long again, or by the budget given.",
    TRAINING,
    key="train.seed_basins",
    kind=bool,
)
MD_TIME_BUDGET = Flag(
    "time_budget",
    ("--time-budget",),
    "Time of all that md does (90s, 30m, 01:30:00). Without any budget: 10m.",
    SIMULATION,
    key="md.time_budget",
    metavar="TIME",
)
MD_MAX_ENERGIES = Flag(
    "max_energies",
    ("--max-energies",),
    "Energy evaluations of all that md does (5e8). With it alone, seed and threads decide the result.",
    SIMULATION,
    key="md.max_energies",
    metavar="N",
)
N_SAMPLES = Flag(
    "n",
    ("-n",),
    "Number of samples, over all shards.",
    SAMPLING,
    key="sample.n",
    metavar="N",
    default="50000",
)
INNER = Flag(
    "inner",
    ("--inner",),
    "Redraws of the stiff coordinates behind each sample, whose weight is their mean: K energies a sample.",
    SAMPLING,
    key="sample.inner",
    metavar="K",
    default="1",
)
REFINE = Flag(
    "refine",
    ("--refine",),
    "Anneal each draw to the target over so many bridges, with exact weights: 4 energies with forces a bridge.",
    SAMPLING,
    key="sample.refine",
    metavar="STEPS",
    default="0",
)
DRAWN_AT = Flag(
    "drawn_at",
    ("--temperature",),
    "Temperature to draw at, in kelvin; may be repeated: all draws have one density, and can be reweighted to each. "
    "Without it: that of the ensemble.",
    SAMPLING,
    key="sample.temperatures",
    metavar="K",
    kind=list[float],
)
SHARD = Flag("shard", ("--shard",), "Draw only part i of N (1-based).", SAMPLING, key="sample.shard", metavar="i/N")
NEW_TEMPERATURES = Flag(
    "temperatures",
    ("--temperature",),
    "Temperature to reweight to, in kelvin; may be repeated. Without it: the temperature of the ensemble.",
    SAMPLING,
    key="reweight.temperatures",
    metavar="K",
    kind=list[str],
)
REFERENCE = Flag(
    "reference",
    ("--reference",),
    "md.h5 of boltzgen md on the same system: compare populations, and look for states that the flow has lost.",
    REFERENCES,
    key="analyze.reference",
    metavar="FILE",
)
PROBE = Flag(
    "probe",
    ("--probe/--no-probe",),
    "Look for states that the flow has lost, with structures from outside it: up to a tenth of the time of the "
    "training. Without it, or a reference, no verdict is OK.",
    REFERENCES,
    key="analyze.probe",
    default="probe",
    kind=bool,
)
REQUIRE_ESS = Flag(
    "require_ess",
    ("--require-ess",),
    "Least effective sample size: a fraction of the samples up to 1, a count above 1.",
    GATES,
    key="analyze.require_ess",
    metavar="ESS",
)
STRICT = Flag("strict", ("--strict",), "Ask for the verdict OK.", GATES, key="analyze.strict", kind=bool)

COMMON = (
    Flag("config", ("-c", "--config"), "TOML file with settings.", CONFIGURATION, metavar="FILE", kind=Path),
    Flag(
        "settings",
        ("--set",),
        "Set any key; may be repeated. Flags win over --set, --set over the file.",
        CONFIGURATION,
        metavar="a.b=v",
        kind=list[str],
    ),
    Flag(
        "dump_config",
        ("--dump-config",),
        "Print the resolved settings as TOML, do nothing else.",
        CONFIGURATION,
        kind=bool,
    ),
    Flag(
        "seed",
        ("--seed",),
        "Seed of every random stream.",
        CONFIGURATION,
        key="seed",
        metavar="N",
        default="0",
    ),
    Flag(
        "threads",
        ("--threads",),
        "CPU threads of training and md; 0: all cores.",
        CONFIGURATION,
        key="threads",
        metavar="N",
        default="0",
    ),
    Flag("force", ("--force",), "Redo what is there already.", BEHAVIOUR, kind=bool),
    Flag("dry_run", ("--dry-run",), "Read the input, print the plan, write nothing.", BEHAVIOUR, kind=bool),
    Flag(
        "json",
        ("--json",),
        "One JSON object on stdout, all else on stderr. After an error its keys are error and exit_code.",
        BEHAVIOUR,
        kind=bool,
    ),
    Flag("quiet", ("-q", "--quiet"), "Only warnings and errors.", BEHAVIOUR, kind=bool),
    Flag("verbose", ("-v", "--verbose"), "Also show settings, and all progress.", BEHAVIOUR, kind=bool),
    Flag("no_color", ("--no-color",), "No colour; so does the variable NO_COLOR.", BEHAVIOUR, kind=bool),
    Flag("debug", ("--debug",), "Show the traceback of an error.", BEHAVIOUR, kind=bool),
)

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="INPUT",
        help="Structure of the molecule: PDB, mmCIF, SDF, MOL, MOL2 or .smi, plain or gzip.",
        show_default=False,
    ),
]
SourceOrRun = Annotated[
    str | None,
    typer.Argument(
        metavar="INPUT|RUN",
        help="Structure file (as for prepare), which is prepared first, or a prepared run directory.",
        show_default=False,
    ),
]
Run = Annotated[Path | None, typer.Argument(metavar="RUN", help="Run directory, such as mol.run.", show_default=False)]
AnyPath = Annotated[
    Path | None,
    typer.Argument(metavar="PATH", help="Run directory, or one of its files.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="RUN",
        help="Run directory; without it INPUT's name with .run, here.",
        rich_help_panel=MOLECULE,
        show_default=False,
    ),
]
Smiles = Annotated[
    str | None,
    typer.Option(
        "--smiles",
        metavar="TEXT",
        help="The molecule as SMILES: in place of INPUT, or beside a PDB or mmCIF INPUT for its bond orders.",
        rich_help_panel=MOLECULE,
        show_default=False,
    ),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="TIME",
        help="Limit of a queue (23:30:00): stop with a checkpoint, exit 75; the same command goes on.",
        rich_help_panel=TRAINING,
        show_default=False,
    ),
]
Quick = Annotated[
    bool,
    typer.Option("--quick", help="The short list: about a minute of one core.", metavar=" ", show_default=False),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="Go on from a checkpoint if there is one (default: resume).",
        metavar=" ",
        rich_help_panel=TRAINING,
        show_default=False,
    ),
]
