"""What a computed block works with: networks and images of the scale, opened when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segradius.core.text import refuse_unknown, size
from segradius.data import SegmentationData
from segradius.data.sample import Sample
from segradius.evaluation import open_images
from segradius.evaluation.job import DataChoice
from segradius.models import Segmenter, load_model
from segradius.paper.scale import Network

#: Of images, as ``--data`` and the options beside it have them.
IMAGES = ("data", "split", "size", "protocol", "limit", "stride", "labels", "order")


@dataclass(frozen=True)
class Bench:
    """What a computed block works with.

    Attributes:
        networks: Those of the block, by label, in the order of the scale; none where it asks for none.
        models: By label, what `segradius.load_model` takes: ``model``, ``weights``, ….
        images: By label of data, options of images.
        folder: For files beside ``computed.json``: it is there, and nobody else writes in it.
        device: As ``--device`` has it, auto resolved.
    """

    networks: Mapping[str, Network] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folder: Path = Path()
    device: str = "cpu"

    def model(self, label: str) -> Segmenter:
        """A network, opened anew with each call, so that what is let go takes no memory."""
        refuse_unknown("network", [label], self.models)
        options = dict(self.models[label])
        return load_model(options.pop("model"), **options, device=self.device)

    def data(self, label: str) -> SegmentationData:
        """The images of a label of data, as many as the block wants, spread over the set."""
        refuse_unknown("data", [label], self.images)
        return open_images(choice_of(self.images[label]))

    def samples(self, label: str) -> Sequence[Sample]:
        """The same, read into memory."""
        return list(_samples(self.data(label)))


def choice_of(images: Mapping[str, Any]) -> DataChoice:
    """Images as an experiment describes them, from the options of a study.

    Example:
        >>> choice_of({"data": "scenes:24x32", "size": "12x16", "limit": 3, "order": "spread"}).size
        (12, 16)
    """
    refuse_unknown("option of images", images, IMAGES)
    rest = {name: value for name, value in images.items() if name not in ("data", "size")}
    return DataChoice(images["data"], size=size(images.get("size")), **rest)


def _samples(data: SegmentationData) -> Iterator[Sample]:
    for place in range(len(data)):
        yield data[place]
