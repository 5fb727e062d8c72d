"""Read the user's input, a file or a SMILES string, and say what it is; the molecule is judged later."""

from __future__ import annotations

import gzip
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rdkit import Chem
from rdkit.rdBase import BlockLogs

from boltzgen.errors import InputError, StorageError, UnsupportedError

SIZE_LIMIT = 64 * 2**20
"""Largest accepted input in bytes, after decompression."""


@dataclass(frozen=True)
class InputSource:
    """One input, read and recognised but not yet interpreted.

    Attributes
    ----------
    kind
        ``"pdb"`` or ``"smiles"``.
    text
        The PDB text, or the SMILES alone (without a title).
    name
        A name for outputs: the file's stem, or ``"molecule"`` for a bare SMILES.
    sha256
        Hexadecimal SHA-256 of ``text`` encoded as UTF-8.
    where
        What error messages call the input: the path, or ``"SMILES"``.
    """

    kind: Literal["pdb", "smiles"]
    text: str
    name: str
    sha256: str
    where: str


def printable(text: str, limit: int = 80) -> str:
    """Return ``text`` fit for a one-line message: control characters replaced, long text cut."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def read_input(path: str | Path | None = None, smiles: str | None = None) -> InputSource:
    """Read a PDB file (plain or gzip), a ``.smi`` file, or a SMILES string.

    What a file holds is decided by its content. A ``.smi`` file has one molecule on its first line,
    optionally followed by white space and a title.

    Raises
    ------
    InputError
        If neither or both are given, or the file is missing, a folder, empty, too large, binary or of no
        known kind.
    UnsupportedError
        If the file is mmCIF.
    StorageError
        If the file cannot be read.
    """
    if (path is None) == (smiles is None):
        raise InputError("need one molecule. Give either a PDB or .smi file, or a SMILES string.")
    if smiles is not None:
        return _smiles_source(smiles, "molecule", "SMILES")
    path = Path(str(path))
    where = printable(str(path), limit=200)
    text = _decode(_read_bytes(path, where), where)
    name = printable(path.name.removesuffix(".gz").rsplit(".", 1)[0]) or "molecule"
    if "_atom_site." in text:
        raise UnsupportedError(f"{where}: mmCIF is not supported. Convert it to PDB first.")
    if any(line.startswith(("ATOM  ", "HETATM")) for line in text.splitlines()):
        return InputSource("pdb", text, name, _sha256(text), where)
    if path.name.removesuffix(".gz").lower().endswith((".smi", ".smiles")):
        return _smiles_source(_first_smiles(text, where), name, where)
    raise InputError(f"{where}: no ATOM records. Give a PDB file, a .smi file, or a SMILES string.")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read_bytes(path: Path, where: str) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{where}: is a folder. Give a PDB or .smi file.")
        if not path.exists():
            raise InputError(f"{where}: no such file. Check the path.")
        if not path.is_file():
            raise InputError(f"{where}: is not a regular file. Give a PDB or .smi file.")
        with path.open("rb") as handle:
            data = handle.read(SIZE_LIMIT + 1)
        if data[:2] == b"\x1f\x8b":
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(SIZE_LIMIT + 1)
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{where}: damaged gzip file. Decompress it and look.") from error
    except (OSError, ValueError) as error:
        raise StorageError(f"{where}: cannot be read ({error}). Check its permissions.") from error
    if len(data) > SIZE_LIMIT:
        raise InputError(f"{where}: larger than {SIZE_LIMIT // 2**20} MiB. Give one molecule.")
    if not data.strip():
        raise InputError(f"{where}: is empty. Give a PDB or .smi file.")
    return data


def _decode(data: bytes, where: str) -> str:
    if b"\0" in data:
        raise InputError(f"{where}: is a binary file, not PDB or SMILES text. Give a PDB or .smi file.")
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
        if title and Chem.MolFromSmiles(title[0].split()[0]) is not None:
            raise InputError(
                f"{where}:{number}: the text after the SMILES reads as another SMILES. "
                "Remove the space, or choose another title."
            )
    return smiles


def _smiles_source(smiles: str, name: str, where: str) -> InputSource:
    if not smiles.strip():
        raise InputError(f"{where}: empty SMILES. Give a molecule.")
    # RDKit stops at white space and would silently build another molecule from the first part.
    for column, character in enumerate(smiles, 1):
        if not "!" <= character <= "~":
            shown = f"U+{ord(character):04X}"
            raise InputError(
                f"{where}: character {column} of the SMILES ({shown}) is white space or not ASCII. Remove it."
            )
    return InputSource("smiles", smiles, name, _sha256(smiles), where)
