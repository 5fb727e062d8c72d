"""The residues of a capped peptide: atoms and bonds from the ff14SB file, bond orders, side-chain torsions.

Atom and residue names follow the AMBER templates whatever force field is chosen, so that one molecule has one
set of names. The C-terminal amide is called ``NH2``, its name in the PDB, instead of AMBER's ``NHE``.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import openmm.app

DATA = Path(openmm.app.__file__).parent / "data"
"""The folder of the force-field files that come with OpenMM."""

N_CAPS = ("ACE",)
C_CAPS = ("NME", "NH2")
AMINO_ACIDS = (
    *(
        "ALA",
        "ARG",
        "ASH",
        "ASN",
        "ASP",
        "CYM",
        "CYS",
        "GLH",
        "GLN",
        "GLU",
        "GLY",
        "HID",
        "HIE",
        "HIP",
        "ILE",
    ),
    *("LEU", "LYN", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL"),
)

VARIANTS = {
    "ASP": ("ASP", "ASH"),
    "GLU": ("GLU", "GLH"),
    **dict.fromkeys(("HIS", "HID", "HIE", "HIP", "HSD", "HSE", "HSP"), ("HID", "HIE", "HIP")),
    **{"NMA": ("NME",), "NHE": ("NH2",)},
}
"""Residue names of PDB files → the templates among which the hydrogens decide."""

KNOWN = frozenset({*AMINO_ACIDS, *N_CAPS, *C_CAPS, *VARIANTS})
"""All residue names that a chain may have."""

HEAVY_ALIASES = {
    "ILE": {"CD": "CD1"},
    "ACE": {"CA": "CH3", "CAY": "CH3", "CY": "C", "OY": "O"},
    "NME": {"C": "CH3", "CT": "CH3", "CAT": "CH3", "CA": "CH3", "NT": "N"},
    "NH2": {"NT": "N"},
}
"""Other programs' names of heavy atoms. Hydrogens need none: they are recognised by the atom they sit on."""

_RING = (("CG", "CD1"), ("CE1", "CZ"), ("CE2", "CD2"))
_SIDE_CHAIN_DOUBLE_BONDS = {
    **dict.fromkeys(("ASP", "ASH", "ASN"), (("CG", "OD1"),)),
    **dict.fromkeys(("GLU", "GLH", "GLN"), (("CD", "OE1"),)),
    "ARG": (("CZ", "NH2"),),
    "HID": (("CG", "CD2"), ("CE1", "NE2")),
    **dict.fromkeys(("HIE", "HIP"), (("CG", "CD2"), ("ND1", "CE1"))),
    **dict.fromkeys(("PHE", "TYR"), _RING),
    "TRP": (("CG", "CD1"), ("CD2", "CE3"), ("CZ3", "CH2"), ("CZ2", "CE2")),
}
FORMAL_CHARGES = {
    **{"ASP": ("OD2", -1), "GLU": ("OE2", -1), "CYM": ("SG", -1)},
    **{"ARG": ("NH2", 1), "HIP": ("ND1", 1), "LYS": ("NZ", 1)},
}
"""Residue name → the atom that carries the formal charge, and the charge in e."""

_LONG = ("N", "CA", "CB", "CG", "CD")
CHI_ATOMS = {
    "ARG": (*_LONG, "NE", "CZ"),
    **dict.fromkeys(("ASN", "ASP", "ASH"), ("N", "CA", "CB", "CG", "OD1")),
    **dict.fromkeys(("CYS", "CYM"), ("N", "CA", "CB", "SG")),
    **dict.fromkeys(("GLN", "GLU", "GLH"), (*_LONG, "OE1")),
    **dict.fromkeys(("HID", "HIE", "HIP"), ("N", "CA", "CB", "CG", "ND1")),
    "ILE": ("N", "CA", "CB", "CG1", "CD1"),
    "LEU": ("N", "CA", "CB", "CG", "CD1"),
    **dict.fromkeys(("LYS", "LYN"), (*_LONG, "CE", "NZ")),
    "MET": ("N", "CA", "CB", "CG", "SD", "CE"),
    **dict.fromkeys(("PHE", "TYR", "TRP"), ("N", "CA", "CB", "CG", "CD1")),
    "SER": ("N", "CA", "CB", "OG"),
    "THR": ("N", "CA", "CB", "OG1"),
    "VAL": ("N", "CA", "CB", "CG1"),
}
"""Residue name → the chain of atoms whose consecutive fours are chi1, chi2, … (IUPAC-IUB 1970)."""


@dataclass(frozen=True)
class Residue:
    """A residue template: ``elements`` by atom name in AMBER's order, and the bonds inside, by name."""

    name: str
    elements: dict[str, str]
    bonds: tuple[tuple[str, str], ...]
    external: tuple[str, ...]

    @property
    def double_bonds(self) -> tuple[tuple[str, str], ...]:
        """One Kekulé structure of the residue."""
        backbone = (("C", "O"),) if "O" in self.elements else ()
        return backbone + _SIDE_CHAIN_DOUBLE_BONDS.get(self.name, ())

    def heavy_neighbour(self, hydrogen: str) -> str:
        """Name of the atom that a hydrogen is bonded to."""
        return next(b if a == hydrogen else a for a, b in self.bonds if hydrogen in (a, b))


def load_residues() -> dict[str, Residue]:
    """Read the templates of all supported residues and caps from OpenMM's ff14SB file."""
    root = ElementTree.parse(DATA / "amber14" / "protein.ff14SB.xml").getroot()
    element_of_type = {entry.get("name"): entry.get("element", "") for entry in root.iter("Type")}
    wanted = {*AMINO_ACIDS, *N_CAPS, "NME", "NHE"}
    residues = {}
    for node in root.iter("Residue"):
        if node.get("name") not in wanted:
            continue
        name = {"NHE": "NH2"}.get(node.attrib["name"], node.attrib["name"])
        residues[name] = Residue(
            name=name,
            elements={atom.attrib["name"]: element_of_type[atom.get("type")] for atom in node.iter("Atom")},
            bonds=tuple((bond.attrib["atomName1"], bond.attrib["atomName2"]) for bond in node.iter("Bond")),
            external=tuple(bond.attrib["atomName"] for bond in node.iter("ExternalBond")),
        )
    return residues
