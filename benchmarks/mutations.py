"""Seeded damage to files of molecules and SMILES, for ``fuzz_inputs.py``: slips of the hand, bad disks, and worse."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MOLECULES = Path(__file__).parents[1] / "molecules"
COUNTS = {"pdb": 1500, "smiles": 4000, "sdf": 300, "mol2": 300, "cif": 300}
"""Kinds of input, and how many of each make a whole run; new kinds come last, as their place is part of the seed."""

TEMPLATES = {
    "ace_ala3_nme.pdb": "CC(=O)N[C@@H](C)C(=O)N[C@@H](C)C(=O)N[C@@H](C)C(=O)NC",
    "alanine_dipeptide.pdb": "CC(=O)N[C@@H](C)C(=O)NC",
    "aspirin.pdb": "CC(=O)Oc1ccccc1C(=O)O",
}
"""SMILES of the PDB files: bond orders come from there, or from the net charge, which is 0 for all of them."""

Random = np.random.Generator
Lines = list[str]


@dataclass(frozen=True)
class Input:
    """What is read, the SMILES that is given beside it, and other fields of ``Reading``."""

    data: bytes
    template: str | None = None
    flags: dict[str, Any] = field(default_factory=dict)


def some_atom(random: Random, lines: Lines) -> int:
    """The index of an atom record, or of any line if there is none; −1 if there is no line."""
    atoms = [i for i, line in enumerate(lines) if line.startswith(("ATOM", "HETATM"))] or range(-1, len(lines))
    return int(random.choice(atoms))


def overwrite(column: int, width: int, *texts: str) -> Callable[[Random, Lines], Lines]:
    """A mutation that puts one of the texts into a column of an atom record."""

    def mutate(random: Random, lines: Lines) -> Lines:
        i = some_atom(random, lines)
        text = str(random.choice(texts))[:width].ljust(width)
        line = lines[i].ljust(80)
        return [*lines[:i], line[:column] + text + line[column + width :], *lines[i + 1 :]]

    return mutate


def delete_lines(random: Random, lines: Lines) -> Lines:
    i, n = int(random.integers(len(lines) + 1)), int(random.integers(1, 4))
    return lines[:i] + lines[i + n :]


def duplicate_lines(random: Random, lines: Lines) -> Lines:
    i, n, to = int(random.integers(len(lines) + 1)), int(random.integers(1, 4)), int(random.integers(len(lines) + 1))
    return lines[:to] + lines[i : i + n] + lines[to:]


def swap_lines(random: Random, lines: Lines) -> Lines:
    lines = list(lines)
    i, j = random.integers(len(lines), size=2)
    lines[i], lines[j] = lines[j], lines[i]
    return lines


def shift_columns(random: Random, lines: Lines) -> Lines:
    i, k = some_atom(random, lines), int(random.integers(80))
    line = lines[i]
    shifted = (
        line[:k] + " " * int(random.integers(1, 3)) + line[k:] if random.random() < 0.5 else line[:k] + line[k + 1 :]
    )
    return [*lines[:i], shifted, *lines[i + 1 :]]


def move_atom(random: Random, lines: Lines) -> Lines:
    i = some_atom(random, lines)
    try:
        xyz = np.array([float(lines[i][c : c + 8]) for c in (30, 38, 46)])
    except ValueError:
        return lines
    xyz += random.choice([0.1, 0.3, 1.0, 5.0]) * random.standard_normal(3)
    return [*lines[:i], lines[i][:30] + "".join(f"{value:8.3f}"[:8] for value in xyz) + lines[i][54:], *lines[i + 1 :]]


def copy_coordinates(random: Random, lines: Lines) -> Lines:
    i, j = some_atom(random, lines), some_atom(random, lines)
    return [*lines[:i], lines[i][:30] + lines[j][30:54] + lines[i][54:], *lines[i + 1 :]]


def transform_all(random: Random, lines: Lines) -> Lines:
    """Mirror, shrink, stretch or flatten all coordinates, or round them to Ångström."""
    factor = {"mirror": (-1, 1, 1), "shrink": (0.7,) * 3, "stretch": (1.3,) * 3, "flatten": (1, 1, 0)}
    kind = str(random.choice([*factor, "round"]))
    changed = []
    for line in lines:
        try:
            xyz = np.array([float(line[c : c + 8]) for c in (30, 38, 46)])
        except ValueError:
            changed.append(line)
            continue
        xyz = np.round(xyz) if kind == "round" else xyz * factor[kind]
        changed.append(line[:30] + "".join(f"{value:8.3f}"[:8] for value in xyz) + line[54:])
    return changed


def insert_record(random: Random, lines: Lines) -> Lines:
    x, y, z = random.uniform(-20.0, 20.0, 3)
    xyz = f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          "
    record = random.choice(
        [
            f"HETATM 9001  O   HOH A 900    {xyz} O",
            f"HETATM 9002 ZN    ZN A 901    {xyz}ZN",
            f"HETATM 9003  C1  LIG A 902    {xyz} C",
            f"ATOM   9004  CA  ALA A 903    {xyz} C",
            f"ATOM   9005  H9  ALA A   2    {xyz} H",
            *(
                "TER",
                "MODEL        1",
                "ENDMDL",
                "END",
                "CONECT    1    2    3",
                "CONECT 99999     x",
                "ATOM",
                "HETATM",
            ),
            *(
                "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1",
                "REMARK µ Å 分子 \u202e",
                "\x1b[31m",
            ),
        ]
    )
    i = int(random.integers(len(lines) + 1))
    return [*lines[:i], str(record), *lines[i:]]


PDB_MUTATIONS: tuple[Callable[[Random, Lines], Lines], ...] = (
    *(
        delete_lines,
        duplicate_lines,
        swap_lines,
        shift_columns,
        move_atom,
        copy_coordinates,
        transform_all,
        insert_record,
    ),
    overwrite(
        30, 8, "nan", "inf", "-inf", "1e400", "********", "99999.99", "-9999.99", "1e30", "abc", "", "0.000", "1_0.0"
    ),
    overwrite(46, 8, "nan", "9999.999", "0.000", "1e5", "٣.٣"),
    overwrite(76, 2, " H", " C", " N", " O", " S", "CL", "ZN", " X", "", "c", " D", "Å"),
    overwrite(78, 2, "1+", "2-", "+1", "9+", "--"),
    overwrite(12, 4, " CA ", " CB ", " C  ", " N  ", " H  ", "HH31", " O  ", "", " Å  ", "\x00", " ' "),
    overwrite(16, 1, "A", "B", "1", "é"),
    overwrite(17, 3, "ALA", "GLY", "PRO", "CYX", "HOH", "ala", "LIG", "", "ÅÅÅ", "NME", "ACE", "NH2"),
    overwrite(21, 1, "A", "B", " ", "é"),
    overwrite(22, 5, "1", "2", "   9", "-1", "9999", "1A", "", "A000", "x", "٣"),
    overwrite(54, 6, "  0.50", "nan", "x", "-1.0", "1e400"),
    overwrite(0, 6, "ATOM", "HETATM", "ANISOU", "atom", "TER", "\x00"),
)


def damaged_bytes(random: Random, data: bytes) -> bytes:
    """Flipped bytes, a missing end, other line ends, compression, or the file twice."""
    kind = random.choice(["none", "flip", "truncate", "crlf", "cr", "bom", "gzip", "damaged_gzip", "twice", "utf16"])
    match kind:
        case "flip":
            flipped = bytearray(data)
            for place in random.integers(len(data), size=int(random.integers(1, 9))):
                flipped[place] = random.integers(256)
            return bytes(flipped)
        case "truncate":
            return data[: int(random.integers(len(data)))]
        case "crlf" | "cr":
            return data.replace(b"\n", b"\r\n" if kind == "crlf" else b"\r")
        case "bom":
            return b"\xef\xbb\xbf" + data
        case "gzip":
            return gzip.compress(data)
        case "damaged_gzip":
            return damaged_bytes(random, gzip.compress(data))
        case "twice":
            return data + data
        case "utf16":
            return data.decode("utf-8", "replace").encode("utf-16")
    return data


ALPHABET = [
    *"CNOSPFIBHcnosp[]()=#$:/\\@+-.%*0123456789",
    "Cl",
    "Br",
    "Si",
    "[nH]",
    "[C@@H]",
    "[N+]",
    "[O-]",
    "[H]",
    "[Na+]",
]
STRANGE = [
    " ",
    "\n",
    "\t",
    "\x00",
    "О",
    "é",
    "\u202e",
    "\udcff",
    "[13C]",
    "[CH3:1]",
    "[CH2]",
    "[U]",
    "[Xx]",
    "%(100)",
    "[C+5]",
    "&",
]


GROUPS = [
    "(C)",
    "(F)",
    "(O)",
    "(N)",
    "(=O)",
    "(C#N)",
    "(S)",
    "(Cl)",
    "([O-])",
    "(N=[N+]=[N-])",
    "1CC1",
    "C=CC",
    "CC#CC",
    "=C=C",
]
"""What a valid SMILES often stays valid with."""


def damaged_smiles(random: Random, smiles: str, others: list[str]) -> str:
    """One mutation of a SMILES string; half of them by pieces that make sense."""
    i, j = sorted(int(k) for k in random.integers(len(smiles) + 1, size=2))
    mutations: dict[str, Callable[[], str]] = {
        "replace": lambda: smiles[:i] + str(random.choice(ALPHABET)) + smiles[i + 1 :],
        "insert": lambda: smiles[:i] + str(random.choice(ALPHABET)) + smiles[i:],
        "strange": lambda: smiles[:i] + str(random.choice(STRANGE)) + smiles[i:],
        "delete": lambda: smiles[:i] + smiles[i + 1 :],
        "swap": lambda: smiles[:i] + smiles[i + 1 : i + 2] + smiles[i : i + 1] + smiles[i + 2 :],
        "cut": lambda: smiles[:i] + smiles[j:],
        "truncate": lambda: smiles[:i],
        "repeat": lambda: smiles[:i] + smiles[i:j] * int(random.choice([2, 3, 30])) + smiles[j:],
        "ring digit": lambda: re.sub(
            r"\d", lambda m: m[0] if random.random() < 0.7 else str(random.integers(10)), smiles
        ),
        "bracket": lambda: smiles.replace(str(random.choice(["[", "]", "(", ")"])), "", 1),
        "stereo": lambda: smiles.replace("@@", "@") if random.random() < 0.5 else re.sub(r"[@/\\]", "", smiles),
        "join": lambda: smiles[:i] + str(random.choice(others)) + smiles[i:],
        "dot": lambda: f"{smiles}.{random.choice(others)}",
        "charge": lambda: re.sub(r"\]", f"{random.choice(['+', '-', '+2', '-3'])}]", smiles, count=1),
    }
    atoms = [m.end() for m in re.finditer(r"[CNO](?![a-z@\]])", smiles)]
    if atoms and random.random() < 0.5:
        end = int(random.choice(atoms))
        if random.random() < 0.5:
            return smiles[:end] + str(random.choice(GROUPS)) + smiles[end:]
        return smiles[: end - 1] + str(random.choice([*"CNOSPFI", "Br", "Si", "B"])) + smiles[end:]
    return mutations[str(random.choice(list(mutations)))]()


TOKENS = [
    *("nan", "inf", "-1", "0", "1e400", "9999999", "x", "Å", "?", ".", "C.3", "Cl", "R#", "*", "V3000"),
    "",
    "2 3",
]


def replace_token(random: Random, lines: Lines) -> Lines:
    """Another word in the place of one of the words of a line; columns shift if it is longer."""
    i = int(random.integers(len(lines)))
    words = list(re.finditer(r"\S+", lines[i]))
    if not words:
        return lines
    word = words[int(random.integers(len(words)))]
    text = str(random.choice(TOKENS)).rjust(len(word[0]))
    return [*lines[:i], lines[i][: word.start()] + text + lines[i][word.end() :], *lines[i + 1 :]]


def move_number(random: Random, lines: Lines) -> Lines:
    """Another value of one of the numbers of a line, in as many columns."""
    i = int(random.integers(len(lines)))
    numbers = list(re.finditer(r"-?\d+\.\d+", lines[i]))
    if not numbers:
        return lines
    number = numbers[int(random.integers(len(numbers)))]
    value = float(number[0]) + random.choice([0.1, 0.3, 1.0, 5.0]) * random.standard_normal()
    text = f"{value:{len(number[0])}.4f}"[: len(number[0])]
    return [*lines[:i], lines[i][: number.start()] + text + lines[i][number.end() :], *lines[i + 1 :]]


TABLE_MUTATIONS = (delete_lines, duplicate_lines, swap_lines, shift_columns, replace_token, replace_token, move_number)
"""For SDF, MOL2 and mmCIF."""


def damaged_file(random: Random, path: Path, mutations: tuple[Callable[[Random, Lines], Lines], ...]) -> bytes:
    content = path.read_bytes()
    lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode().splitlines()
    for _ in range(int(random.choice([1, 1, 2, 3]))):
        lines = mutations[int(random.integers(len(mutations)))](random, lines) or lines
    data = "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass")
    return damaged_bytes(random, data) if random.random() < 0.4 else data


def make_input(kind: str, seed: int, k: int) -> Input:
    """Input number ``k`` of a kind; SMILES in UTF-8 with lone surrogates kept."""
    random = np.random.default_rng([seed, list(COUNTS).index(kind), k])
    flags: dict[str, Any] = {"largest_fragment": bool(random.random() < 0.2)}
    if kind == "smiles":
        flags["stereo"] = "pick" if random.random() < 0.5 else "declared"
        panel = (MOLECULES / "panel.smi").read_text() + (MOLECULES / "amino_acids.smi").read_text()
        pool = [line.split()[0] for line in panel.splitlines()]
        smiles = str(random.choice(pool))
        for _ in range(int(random.choice([1, 1, 2, 3]))):
            smiles = damaged_smiles(random, smiles, pool)
        return Input(smiles.encode("utf-8", "surrogatepass"), flags=flags)
    flags["add_hydrogens"] = bool(random.random() < 0.2)
    endings = [f"*.{kind}", f"*.{kind}.gz"]
    path: Path = random.choice(sorted(found for ending in endings for found in MOLECULES.glob(ending)))
    if kind != "pdb":
        return Input(damaged_file(random, path, TABLE_MUTATIONS), flags=flags)
    template = TEMPLATES.get(path.name.removesuffix(".gz"))
    # Peptides have residue templates; the bond orders of a ligand must come from somewhere.
    sources = ["template", "charge", "none"]
    source = random.choice(sources, p=[0.5, 0.4, 0.1] if "aspirin" in path.name else [0.1, 0.1, 0.8])
    if source == "charge":
        flags["charge"] = 0
    return Input(damaged_file(random, path, PDB_MUTATIONS), template if source == "template" else None, flags)
