"""The compiled kernels: one C++ source for every instruction set, chosen when the library is loaded.

The library is built with the package where a C++ compiler is found. Without it :func:`kernels` returns None, and
everything runs in plain torch. The environment variable ``BOLTZGEN_KERNELS`` names an instruction set (``avx512``,
``avx2``, ``baseline``) or ``none``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import time
import warnings
from functools import lru_cache

from boltzgen.errors import EnvironmentProblem, SlowPathWarning

CHOICE = "BOLTZGEN_KERNELS"
"""Environment variable that overrides the choice of the instruction set."""


INTERFACE = 4
"""Number of the interface in ``program.h`` that the structures below describe."""


class Table(ctypes.Structure):
    """Rows of one kind of term, see ``program.h``."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("atoms", ctypes.c_void_p),
        ("parameters", ctypes.c_void_p),
        ("shared", ctypes.c_void_p),
    )


class Job(ctypes.Structure):
    """One evaluation of a batch, see ``program.h``."""

    _fields_ = (
        ("n_atoms", ctypes.c_int32),
        ("n_tables", ctypes.c_int32),
        ("tables", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("energy", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("softening", ctypes.c_double),
    )


class Placement(ctypes.Structure):
    """Internal coordinates to positions, or the adjoint of that, see ``program.h``."""

    _fields_ = (
        ("n_atoms", ctypes.c_int32),
        ("rows", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "bonds",
                "angles",
                "torsions",
                "positions",
                "log_volume",
                "positions_adjoint",
                "log_volume_adjoint",
                "bonds_adjoint",
                "angles_adjoint",
                "torsions_adjoint",
            )
        ),
    )


class Activation(ctypes.Structure):
    """SiLU with bias, or its adjoint, see ``program.h``."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("batch", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("bias", "values", "slopes", "bias_adjoint")),
    )


_MAP_ARRAYS = (
    "input",
    "parameters",
    "bias",
    "result",
    "log_slope",
    "result_adjoint",
    "log_slope_adjoint",
    "input_adjoint",
    "parameters_adjoint",
    "bias_adjoint",
)


class LineMap(ctypes.Structure):
    """Sinh-arcsinh or affine maps, or their adjoints, see ``program.h``."""

    _fields_ = (
        ("n_kept", ctypes.c_int64),
        ("n_moved", ctypes.c_int64),
        ("batch", ctypes.c_int64),
        ("kept", ctypes.c_void_p),
        ("moved", ctypes.c_void_p),
        ("affine", ctypes.c_int32),
        ("inverse", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in _MAP_ARRAYS),
    )


class CircleMap(ctypes.Structure):
    """Circular splines with rotations, or their adjoints, see ``program.h``."""

    _fields_ = (
        ("n_splines", ctypes.c_int32),
        ("n_bins", ctypes.c_int32),
        ("batch", ctypes.c_int64),
        ("inverse", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in _MAP_ARRAYS),
    )


class Kernels:
    """The kernels of one instruction set. Calls release the interpreter lock."""

    def __init__(self, library: ctypes.CDLL, handle: int) -> None:
        self._library, self._handle = library, ctypes.c_void_p(handle)
        self.instruction_set = library.boltzgen_instruction_set(self._handle).decode()

    def run(self, function: str, job: ctypes.Structure, threads: int) -> None:
        """Call a function of the library on a job; raise MemoryError if its workspace cannot be had."""
        if getattr(self._library, f"boltzgen_{function}")(self._handle, ctypes.byref(job), threads):
            raise MemoryError("not enough memory for the workspace of the compiled kernels")

    def multiply_add_rate(self) -> float:
        """Float32 multiply-adds a second that one core does at most, the best of ten runs of about 10 ms."""
        count = self._library.boltzgen_multiply_adds
        count.restype = ctypes.c_int64
        rates = []
        for _ in range(10):
            numbers = (ctypes.c_float * 2)(0.999, 1e-3)
            start = time.perf_counter()
            done = count(self._handle, ctypes.c_int64(2_000_000), numbers)
            rates.append(done / (time.perf_counter() - start))
        return max(rates)


@lru_cache(maxsize=1)
def kernels() -> Kernels | None:
    """Return the kernels for this processor, or None (with one warning) if the package was built without them.

    Raises
    ------
    EnvironmentProblem
        If ``BOLTZGEN_KERNELS`` names an instruction set that this processor or this build has not.
    """
    choice = os.environ.get(CHOICE) or None
    if choice == "none":
        return None
    found = load(choice)
    if found is None and choice:
        raise EnvironmentProblem(f"{CHOICE}={choice}, which this processor or this build of boltzgen has not.")
    if found is None:
        warnings.warn(
            "the compiled kernels of boltzgen are missing: all runs in plain torch, many times slower. "
            "Install it again where a C++ compiler is found.",
            SlowPathWarning,
            stacklevel=2,
        )
    return found


def instruction_set() -> str:
    """Name of the instruction set that energies are computed with, for the record; ``none`` for plain torch."""
    choice = os.environ.get(CHOICE) or None
    found = None if choice == "none" else load(choice)
    return found.instruction_set if found else "none"


def load(instruction_set: str | None = None) -> Kernels | None:
    """Load the kernels of an instruction set, by default the best of this processor; None if there are none.

    Raises
    ------
    EnvironmentProblem
        If the library was built from another version of the package.
    """
    spec = importlib.util.find_spec("boltzgen.native._kernels")
    if spec is None or spec.origin is None:
        return None
    try:
        library = ctypes.CDLL(spec.origin)
    except OSError:  # gone, or built for another system
        return None
    if library.boltzgen_interface() != INTERFACE:
        raise EnvironmentProblem("the compiled kernels are of another version of boltzgen. Install it again.")
    library.boltzgen_kernels.restype = ctypes.c_void_p
    library.boltzgen_instruction_set.restype = ctypes.c_char_p
    handle = library.boltzgen_kernels(instruction_set.encode() if instruction_set else None)
    return None if handle is None else Kernels(library, handle)
