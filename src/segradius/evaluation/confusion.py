"""The file of what labels were taken for, before and after each attack, pixels of all images pooled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from segradius.core.storage import as_csv
from segradius.evaluation.job import Experiment
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.store import Store
from segradius.metrics.confusion import pooled

COLUMNS = ("attack", "norm", "eps", "label", "after", "pixels")


def confusion_csv(experiment: Experiment, store: Store, ids: Sequence[str], names: Sequence[str]) -> str:
    """One line for each attack and pair of a label and a class that was predicted in its place, or is it.

    The unattacked images come first, as ``clean``. Images whose logits were not finite are in none of these
    lines, as in no figure. An attack of an earlier version, which did not count pairs, has none.

    Args:
        experiment: What was run.
        store: Its results.
        ids: Images of the data set.
        names: Of the model's classes.
    """
    aside = store.all_set_aside()
    wanted = {image for image in ids if image not in aside}
    plans = [(plan.label, plan.norm, plan.eps, experiment.key(plan)) for plan in experiment.attacks]
    counted = ((about, pooled_confusion(store, key, wanted)) for *about, key in [(CLEAN, "", "", CLEAN), *plans])
    return as_csv(COLUMNS, (row for about, cells in counted for row in _rows(about, cells, names)))


def pooled_confusion(store: Store, key: str, wanted: set[str]) -> Tensor | None:
    """Pairs over those of the images that have a valid result of a job; None where not all of them were counted.

    Returns:
        As `segradius.metrics.confusion.pooled` has them.
    """
    valid = {image for image, result in store.results(key).items() if result.valid and image in wanted}
    seen = set[str]()

    def cells() -> Iterator[Tensor]:
        for image, found in store.confusions(key):
            if image in valid:
                seen.add(image)
                yield found

    found = pooled(cells())
    return found if seen == valid else None


def _rows(about: Sequence[object], cells: Tensor | None, names: Sequence[str]) -> Iterator[tuple[object, ...]]:
    for label, after, pixels in [] if cells is None else cells.tolist():
        yield *about, names[label], names[after], pixels
