"""Tables and pictures of a run."""

from segradius.report.figure import Attacked, Shown, draw
from segradius.report.gather import shown_images
from segradius.report.table import Cells, notes, tables

__all__ = ["Attacked", "Cells", "Shown", "draw", "notes", "shown_images", "tables"]
