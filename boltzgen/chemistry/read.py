"""Read the user's input, a file or a SMILES string, and say what it is; the molecule is judged later."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rdkit import Chem
from rdkit.rdBase import BlockLogs

from boltzgen.errors import InputError, StorageError, UnsupportedError

SIZE_LIMIT = 64 * 2**20
"""Largest accepted input in bytes, after decompression."""

SMILES_LIMIT = 5000
"""Longest accepted SMILES in characters; nested branches cost the parser memory."""

KINDS = "a PDB, mmCIF, SDF, MOL, MOL2 or .smi file"

Kind = Literal["pdb", "mmcif", "sdf", "mol2", "smiles"]


@dataclass(frozen=True)
class InputSource:
    """One input, read and recognised but not yet interpreted.

    Attributes
    ----------
    kind
        ``"pdb"``, ``"mmcif"``, ``"sdf"`` (MOL files too), ``"mol2"`` or ``"smiles"``.
    text
        The text of the file, or the SMILES alone (without a title).
    name
        A name for outputs: the file's stem, or ``"molecule"`` for a bare SMILES.
    sha256
        Hexadecimal SHA-256 of ``text`` encoded as UTF-8.
    where
        What error messages call the input: the path, or ``"SMILES"``.
    """

    kind: Kind
    text: str
    name: str
    sha256: str
    where: str


def printable(text: str, limit: int = 80) -> str:
    """Return ``text`` fit for a one-line message: control characters replaced, long text cut."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def read_input(path: str | Path | None = None, smiles: str | None = None) -> InputSource:
    """Read a structure file, a ``.smi`` file (each plain or gzip), or a SMILES string.

    What a file holds is decided by its content, never by its ending. A file of SMILES has one molecule on its first
    line, optionally followed by white space and a title.

    Raises
    ------
    InputError
        If neither or both are given, or the file is missing, a folder, empty, too large, binary or of no
        known kind.
    UnsupportedError
        If the SMILES is longer than ``SMILES_LIMIT``.
    StorageError
        If the file cannot be read.
    """
    if (path is None) == (smiles is None):
        raise InputError(f"need one molecule. Give either {KINDS}, or a SMILES string.")
    if smiles is not None:
        return _smiles_source(smiles, "molecule", "SMILES")
    path = Path(str(path))
    where = printable(str(path), limit=200)
    text = read_text(path, f"Give {KINDS}.")
    name = printable(path.name.removesuffix(".gz").rsplit(".", 1)[0]) or "molecule"
    kind = _kind(text, path.name.removesuffix(".gz").lower().endswith((".smi", ".smiles")))
    if kind == "smiles":
        return _smiles_source(_first_smiles(text, where), name, where)
    if kind is None:
        raise InputError(f"{where}: no ATOM records, and of no other known kind. Give {KINDS}, or a SMILES string.")
    return InputSource(kind, text, name, _sha256(text), where)


def read_text(path: Path, advice: str) -> str:
    """Return the text of a file, plain or gzip, at most ``SIZE_LIMIT`` bytes long; ``advice`` ends its errors.

    Raises
    ------
    InputError
        If the file is missing, a folder or a device, empty, too large, or binary.
    StorageError
        If it cannot be read.
    """
    where = printable(str(path), limit=200)
    return _decode(_read_bytes(path, where, advice), where, advice)


def _kind(text: str, is_called_smiles: bool) -> Kind | None:
    lines = text.splitlines()
    if any(line.startswith("@<TRIPOS>") for line in lines):
        return "mol2"
    # Rows of mmCIF begin like PDB records; only mmCIF names the columns of its table.
    if any(line.strip().startswith("_atom_site.") for line in lines):
        return "mmcif"
    if any(line.startswith(("ATOM  ", "HETATM")) for line in lines):
        return "pdb"
    if any(re.search(r"V[23]000\s*$", line) for line in lines[3:4]) or any(line.startswith("M  END") for line in lines):
        return "sdf"
    if is_called_smiles or _reads_as_smiles([line for line in lines if line.strip()]):
        return "smiles"
    return None


def _reads_as_smiles(lines: list[str]) -> bool:
    with BlockLogs():
        return (
            len(lines) == 1
            and len(lines[0]) <= SMILES_LIMIT
            and Chem.MolFromSmiles(lines[0].split()[0], sanitize=False) is not None
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read_bytes(path: Path, where: str, advice: str) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{where}: is a folder. {advice}")
        if not path.exists():
            raise InputError(f"{where}: no such file. Check the path.")
        if not path.is_file():
            raise InputError(f"{where}: is not a regular file. {advice}")
        with path.open("rb") as handle:
            data = handle.read(SIZE_LIMIT + 1)
        if data[:2] == b"\x1f\x8b":
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(SIZE_LIMIT + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{where}: damaged gzip file. Decompress it and look.") from error
    except (OSError, ValueError) as error:
        raise StorageError(f"{where}: cannot be read ({error}). Check its permissions.") from error
    if len(data) > SIZE_LIMIT:
        raise InputError(f"{where}: larger than {SIZE_LIMIT // 2**20} MiB. {advice}")
    if not data.strip():
        raise InputError(f"{where}: is empty. {advice}")
    return data


def _decode(data: bytes, where: str, advice: str) -> str:
    if b"\0" in data:
        raise InputError(f"{where}: is a binary file, not text. {advice}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Old PDB files carry Latin-1 author names in their remarks; the records themselves are ASCII.
        return data.decode("latin-1")


def _first_smiles(text: str, where: str) -> str:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) > 1:
        raise InputError(f"{where}:{lines[1][0]}: a second molecule. Give one molecule per file.")
    number, line = lines[0]
    smiles, *title = line.split(maxsplit=1)
    with BlockLogs():
        if title and Chem.MolFromSmiles(title[0].split()[0][:SMILES_LIMIT]) is not None:
            raise InputError(
                f"{where}:{number}: the text after the SMILES reads as another SMILES. "
                "Remove the space, or choose another title."
            )
    return smiles


def _smiles_source(smiles: str, name: str, where: str) -> InputSource:
    if not smiles.strip():
        raise InputError(f"{where}: empty SMILES. Give a molecule.")
    if len(smiles) > SMILES_LIMIT:
        raise UnsupportedError(f"{where}: a SMILES of {len(smiles):,} characters; the limit is {SMILES_LIMIT:,}.")
    # RDKit stops at white space and would silently build another molecule from the first part.
    for column, character in enumerate(smiles, 1):
        if not "!" <= character <= "~":
            shown = f"U+{ord(character):04X}"
            raise InputError(
                f"{where}: character {column} of the SMILES ({shown}) is white space or not ASCII. Remove it."
            )
    return InputSource("smiles", smiles, name, _sha256(smiles), where)
