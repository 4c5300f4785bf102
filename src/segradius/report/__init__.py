"""Tables and pictures of a run."""

from segradius.report.curve import Curve, draw_curves
from segradius.report.figure import Attacked, Shown, draw
from segradius.report.gather import curves, shown_images
from segradius.report.table import Cells, notes, tables

__all__ = [
    "Attacked",
    "Cells",
    "Curve",
    "Shown",
    "curves",
    "draw",
    "draw_curves",
    "notes",
    "shown_images",
    "tables",
]
