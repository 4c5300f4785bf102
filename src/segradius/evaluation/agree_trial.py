"""Whether two deployments that differ would agree if one of them prepared its images otherwise: tried on a few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import cast

import torch
from torch import Tensor

from segradius.core.contracts import Seen
from segradius.core.errors import SegradiusError
from segradius.evaluation.agree_causes import Tried
from segradius.evaluation.agreeing import Agreement, is_here, scored
from segradius.evaluation.batch import is_priced
from segradius.evaluation.job import ModelChoice
from segradius.evaluation.preparations import others, written
from segradius.evaluation.probe import wanted
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.run import Run, open_choice
from segradius.evaluation.store import Store
from segradius.models.preprocessing import Normalisation
from segradius.models.segmenter import Segmenter
from segradius.targets.target import Target, layers

NOTE = "preparations tried"


def try_preparations(run: Run[Agreement], store: Store, ids: Sequence[str]) -> Tried:
    """What other preparations come to, tried on the side that has no price; noted in the store, so once.

    Args:
        run: Of the two.
        store: Of its results.
        ids: Images with results, of which a few are looked at.
    """
    images = [ids[place] for place in wanted(len(ids))]
    noted = store.noted(NOTE)
    if noted is not None and noted["ids"] == images:
        return Tried(**noted["tried"])
    task = run.experiment.task
    first, second = run.model, task.second.model
    # What was said of each image by the other side is compared, so that no target is asked again; a network goes before
    # a file, and the first before the second.
    sides = [("first", first, run.experiment.model, run.experiment.jobs[0].key), ("second", second, task.other, CLEAN)]
    free = next((side for side in sorted(sides, key=lambda side: is_priced(side[1])) if _is_free(side[1])), None)
    found = Tried(why_not="each try would ask a target again, which has its price")
    if free is not None:
        name, model, choice, key = free
        places = {image: place for place, image in enumerate(run.data.ids)}
        said = [(run.data[places[image]].image, store.prediction(key, image)) for image in images]
        found = _tried(name, model, choice, [(image, classes) for image, classes in said if classes is not None])
    store.note(NOTE, {"ids": images, "tried": asdict(found)})
    return found


def _is_free(model: Seen) -> bool:
    return is_here(model) and (not is_priced(model) or getattr(model, "budget", None) is None)


def _tried(name: str, model: Seen, choice: ModelChoice, known: Sequence[tuple[Tensor, Tensor]]) -> Tried:
    """The shares of agreement of one side, prepared otherwise, with what the other said of the same images."""
    mine = _normalisation(model)
    guesses: Mapping[str, Normalisation] = {**others(mine, len(known[0][0])), **changed(mine, len(known[0][0]))}
    shares = {}
    for what, colours in {"": None, **guesses}.items():
        try:
            other = model if colours is None else _prepared(model, choice, colours)
            shares[what] = _agree(other, known)
        except SegradiusError:
            continue  # as a file that has a normalisation of its own takes no other
    as_is = shares.pop("", float("nan"))
    texts = {what: written(guesses[what]) for what in shares}
    return Tried(len(known), name, as_is, shares, texts, "" if shares else f"the {name} takes no other normalisation")


def changed(mine: Normalisation | None, bands: int) -> dict[str, Normalisation]:
    """Mistakes with a normalisation of one's own: red and blue swapped before it, or done twice.

    Example:
        >>> list(changed(None, 3)), list(changed(Normalisation.imagenet(), 3)), changed(None, 1)
        ([], ['its own with red and blue swapped', 'its own done twice'], {})
    """
    if mine is None or mine.is_identity:
        return {}
    found = {}
    if bands == 3:
        order = tuple(2 - band for band in mine.order)
        found["its own with red and blue swapped"] = replace(mine, order=order)
    twice = [(m + m * s, s * s) for m, s in zip(mine.mean, mine.std, strict=True)]
    if mine.order == tuple(range(mine.bands)):
        found["its own done twice"] = Normalisation(tuple(m for m, _ in twice), tuple(s for _, s in twice))
    return found


def _normalisation(model: Seen) -> Normalisation | None:
    """What is done to the images, as far as it is known: of a file that may be inside."""
    for layer in layers(cast(Target, model)):
        for holder in (layer, getattr(layer, "exchange", None)):
            if isinstance(own := getattr(holder, "normalisation", None), Normalisation):
                return own
    return None


def _prepared(model: Seen, choice: ModelChoice, colours: Normalisation) -> Seen:
    if isinstance(model, Segmenter):
        return replace(model, normalisation=colours, twins=None)
    return open_choice(replace(choice, normalisation=str(colours.entry)), device=model.device)


@torch.no_grad()
def _agree(model: Seen, known: Sequence[tuple[Tensor, Tensor]]) -> float:
    same = pixels = 0
    with model.frozen():
        for image, said in known:
            found = scored(model, image[None].to(model.device))[1][0].cpu()
            same, pixels = same + int((found == said).sum()), pixels + said.numel()
    return same / pixels
