"""What all figures share: colours, type and lines, and pixels from a figure.

Raw samples are grey, reweighted ones blue, a reference is green (Okabe and Ito's palette for colour-blind readers).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.image
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

RAW_COLOR = "#8c8c8c"
REWEIGHTED_COLOR = "#0072B2"
REFERENCE_COLOR = "#009E73"
MARK_COLOR = "#D55E00"

_STYLE = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#404040",
    "axes.labelcolor": "#202020",
    "xtick.color": "#404040",
    "ytick.color": "#404040",
    "xtick.direction": "out",
    "ytick.direction": "out",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "figure.dpi": 160,
}


def render(figure: Figure) -> tuple[bytes, NDArray[np.uint8]]:
    """PNG file content of a figure, and the same pixels as an array (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    rgb = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    png = io.BytesIO()
    # From the pixels: to print the figure would lay it out once more, and slightly differently.
    matplotlib.image.imsave(png, rgb, format="png", dpi=figure.dpi)
    return png.getvalue(), rgb


@contextmanager
def style() -> Iterator[None]:
    """Draw everything inside in the style of the report."""
    with matplotlib.style.context(_STYLE):
        yield
