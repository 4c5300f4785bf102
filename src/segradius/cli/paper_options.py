"""Options of ``segradius paper``: the scale, what is given, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segradius.core import text
from segradius.core.declared import Count, Images
from segradius.core.errors import InputError

if TYPE_CHECKING:
    from segradius.paper.block import Block
    from segradius.paper.scale import Scale


@dataclass(frozen=True)
class PaperOptions:
    """The scale.

    But for scale, given, stride, limit and speed fast, nothing here changes a number.

    Args:
        scale: demo: drawn scenes and tiny networks, minutes for all; light: light networks on CamVid, an hour a
            figure on two cores; full: the paper's networks, images and budgets, with the published weights.
        out: Folder of all scales; networks, measurements and what is shown are in its folder of the scale.
        given: What the scale asks for by name, as camvid=FOLDER,weights=FOLDER; segradius paper list tells the names.
        cost: Say what is left to be run, in passes and in time by a pass that is measured here, and run nothing.
        available: Leave out networks and images whose files are not there, with a line each. Default: refuse with
            the list of what is missing.
        stride: Only every stride-th image, in place of the scale's choice, which is spread over the set too.
        limit: At most so many images for anything.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Images at a time; changes no result but by rounding.
        speed: plain; exact: passes made cheaper by what changes rounding alone; fast: gradients in reduced precision
            too. Every verdict is the plain model's.
        packed: Of claims: read the packed results in this folder, as segradius paper pack wrote them.
        page: Of claims: write the page on the claims to this file.
        pictures: Of claims: the folder of the pictures that the page links. Of pack: the folder that pictures are drawn
            into. Default: that of the scale, and none.
        to: Of pack: the folder that the results are packed into.
    """

    scale: Literal["demo", "light", "full"] = "demo"
    out: str = "segradius-paper"
    given: str | None = None
    cost: bool = False
    available: bool = False
    stride: Images | None = None
    limit: Images | None = None
    device: str = "auto"
    batch_size: Count | None = None
    speed: Literal["plain", "exact", "fast"] = "plain"
    packed: str | None = None
    page: str | None = None
    pictures: str | None = None
    to: str | None = None

    @property
    def folder(self) -> Path:
        """Of all scales."""
        return Path(self.out)

    @property
    def names(self) -> dict[str, str]:
        """What was given, by name."""
        found = dict(text.pairs(self.given)) if self.given else {}
        if "" in found:
            raise InputError(
                f"--given has {found['']!r} without a name; expected NAME=PATH, several with commas between"
            )
        return found

    def read(self) -> tuple[Scale, dict[str, Block]]:
        """The scale, not filled yet, and all blocks as they are at it, of as many images as are asked for."""
        from segradius.paper.block import read_blocks
        from segradius.paper.scale import Scale

        scale = Scale.read(self.scale)
        data = {label: self._images(own) for label, own in scale.data.items()}
        blocks = read_blocks(scale)
        return replace(scale, data=data), {
            name: replace(each, images=self._images(each.images)) if each.images else each
            for name, each in blocks.items()
        }

    def _images(self, own: Mapping[str, object]) -> dict[str, object]:
        found = dict(own)
        if self.stride is not None:
            found = {key: value for key, value in found.items() if key != "order"} | {"stride": self.stride}
        if self.limit is not None:
            limit = found.get("limit")
            found["limit"] = min(self.limit, limit) if isinstance(limit, int) else self.limit
        return found


#: Unless said otherwise.
PAPER = PaperOptions()
