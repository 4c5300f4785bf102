"""Tables and pictures of a run."""

from segradius.report.certified_figure import Certified, draw_certified, draw_radii, map_png
from segradius.report.certified_table import certified_heading, certified_notes, certified_tables
from segradius.report.curve import Curve, draw_curves
from segradius.report.figure import Attacked, Shown, draw
from segradius.report.gather import curves, shown_images
from segradius.report.table import Cells, notes, tables

__all__ = [
    "Attacked",
    "Cells",
    "Certified",
    "Curve",
    "Shown",
    "certified_heading",
    "certified_notes",
    "certified_tables",
    "curves",
    "draw",
    "draw_certified",
    "draw_curves",
    "draw_radii",
    "map_png",
    "notes",
    "shown_images",
    "tables",
]
