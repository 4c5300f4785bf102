"""What the paper's elements would run at a scale: passes and time, trainings and computations included."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from segradius.attacks.base import Attack
from segradius.cli.measures import measures
from segradius.cli.options import RunOptions, device_name
from segradius.cli.paper_run import Work, is_computed, place_of
from segradius.cli.study_folder import WHOLE
from segradius.cli.study_plan import Line, clock, planned_lines
from segradius.core.errors import SegradiusError
from segradius.core.names import safe_name
from segradius.core.screen import console, say, warn
from segradius.core.text import options as text_options
from segradius.core.text import pairs, size
from segradius.data import open_data
from segradius.evaluation.expecting import Passes, Price, passes_of, price_of
from segradius.evaluation.study import Study
from segradius.paper.block import Block
from segradius.paper.computed import expected_passes
from segradius.paper.opened import opened, subjects_of, weights_of
from segradius.paper.plan import Part, folder_of, networks_of, parts
from segradius.paper.recipe import training
from segradius.paper.scale import Network, Scale
from segradius.report.cells import Cells
from segradius.training.adversaries import Attacked, attacks, make_adversary

if TYPE_CHECKING:
    from segradius.cli.paper_options import PaperOptions

#: What stands for images and networks that are not there: passes of an image do not depend on them.
STAND_IN_MODEL, STAND_IN_DATA = "demo", "scenes:24x32"
HEADER = ("what", "images left", "passes left", "time")


def attacks_of(blocks: Iterable[Block], scale: Scale, out: Path) -> tuple[int, str]:
    """How many attacks and certifications on how many images some blocks have, networks counted; nothing is opened.

    Returns:
        Their number over all networks, and the number of images of each, ``all`` where there is no limit.
    """
    jobs, images = 0, set[str]()
    for block in blocks:
        for part in parts(block, scale, out):
            study = Study.of(part.study, part.block.file)
            several = len(pairs(study.budgets["eps"])) if study.budgets.get("eps") else 1
            for each in study.measurements:
                jobs += max(1, len(each.attacks) * several)
            images.add(str(part.study["data"][part.data].get("limit", "all")))
    return jobs, "–".join(sorted(images, key=lambda told: (len(told), told)))


def tell_cost(work: Work, options: PaperOptions) -> None:
    """Print what is left to be run, and run nothing.

    Args:
        work: What is needed.
        options: As the command has them.
    """
    rows, lines = [], []
    for network in work.untrained:
        line = _training(network, work, options)
        lines.append(line)
        rows.append(_cells(f"train {network.label}", [line]))
    for part in work.parts:
        own = _of_part(part, work, options)
        lines += own
        rows.append(_cells(part.name, own))
    for block in work.computed:
        line = _of_block(block, work, options)
        lines.append(line)
        rows.append(_cells(f"compute {block.name}", [line]))
    console().print(Cells(f"What scale {work.scale.name} would run", HEADER, rows).rich())
    known = math.fsum(line.seconds for line in lines if not math.isnan(line.seconds))
    passes = sum(line.all_of_it.forward for line in lines), sum(line.all_of_it.backward for line in lines)
    most = "at most " if any(line.all_of_it.at_most for line in lines) else ""
    rest = " and what cannot be told before" if any(math.isnan(line.seconds) for line in lines) else ""
    say(
        f"{most}{passes[0]:,} forward and {passes[1]:,} backward passes over images; about {clock(known)} of passes "
        f"here{rest}, one image at a time by one worker"
    )
    if work.lacking:
        names = dict.fromkeys(work.scale.lacking.values())
        say(f"No time is told of what needs --given {', '.join(names)}" if names else "")


def _of_part(part: Part, work: Work, options: PaperOptions) -> list[Line]:
    """Lines of a study: what is left of networks that are there, all of those that are not."""
    absent = {each.label for each in work.untrained} | set(work.lacking)
    there, untrained, unknown = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for label, judged in part.subjects.items():
        network = judged.network
        if part.data in work.lacking or network.label in work.lacking:
            unknown[label] = {"model": STAND_IN_MODEL}
        elif network.label in absent or judged.surrogate in absent or is_missing(network, work):
            untrained[label] = {"model": network.model}
        else:
            there[label] = judged.options
    images = part.study["data"][part.data]
    limit = images.get("limit")
    drawn = {"data": f"{STAND_IN_DATA},{limit or 1}"}
    at = place_of(part, work, options)
    found = _lines(part, there, images, at)
    with tempfile.TemporaryDirectory() as nowhere:
        found += _lines(part, untrained, images, replace(at, out=nowhere))
        for line in _lines(part, unknown, drawn, replace(at, out=nowhere)):
            found.append(replace(line, seconds=math.nan, passes=line.passes if limit else None))
    return found


def _lines(part: Part, models: Mapping[str, Any], images: Mapping[str, Any], at: RunOptions) -> list[Line]:
    if not models:
        return []
    study = Study.of({**part.study, "models": dict(models), "data": {part.data: dict(images)}}, part.block.file)
    try:
        return list(planned_lines(study, measures(study, at), WHOLE))
    except SegradiusError as error:
        warn(f"{part.name}: {error}")
        return [Line(part.name, "?", len(models), None, math.nan)]


def _training(network: Network, work: Work, options: PaperOptions) -> Line:
    """A training: each image of the set, in each epoch, through the network, and before through the adversary."""
    asked = training(network, work.scale, work.out)
    epochs, passes = int(asked.get("epochs", 50)), _of_defence(asked)
    if network.data in work.lacking or network.label in work.lacking:
        return Line(network.label, "training", epochs, None, math.nan)
    data = open_data(asked["data"], split=asked.get("split", "train"), size=size(asked.get("size")))
    price = _price(network, data[0].image, options)
    images = epochs * len(data)
    return Line(network.label, "training", images, passes, price.of(passes) * images)


def _of_defence(asked: Mapping[str, Any]) -> Passes:
    """Passes over an image that is learnt once."""
    name = asked.get("adversary", "none")
    if not attacks(name):
        return Passes(1, 1)
    norm, eps = asked.get("norm", "linf"), str(asked.get("eps") or "")
    named, equals, _ = eps.partition("=")
    made = make_adversary(name, norm=named if equals else norm, **text_options(asked.get("options")))
    method = made.method if isinstance(made, Attacked) else None
    if method is None:
        return Passes(1, 1)
    forward, backward = passes_of(Attack(name, method), 2, 3)
    return Passes(forward, backward + 1)  # the verdict's pass is none of a training, the network's own is


def _of_block(block: Block, work: Work, options: PaperOptions) -> Line:
    """A computation, of which half of the passes are taken to be forward."""
    networks = networks_of(block, work.scale)
    if any(each.label in work.lacking for each in networks):
        return Line(block.name, block.compute, 1, None, math.nan)
    try:
        subjects = subjects_of(block, work.scale, work.out)
        if is_computed(block, subjects, folder_of(work.out, work.scale) / safe_name(block.name)):
            return Line(block.name, block.compute, 0, Passes(0), 0.0)
        passes = Passes(expected_passes(block.compute, subjects, block.options))
        price = _price(networks[0], subjects[0].images[0].image, options) if subjects else Price(0.0, 0.0)
    except SegradiusError as error:
        warn(f"{block.name}: {error}")
        return Line(block.name, block.compute, 1, None, math.nan)
    half = Passes(passes.forward // 2, passes.forward // 2)
    return Line(block.name, block.compute, 1, passes, price.of(half))


def is_missing(network: Network, work: Work) -> bool:
    """Whether its weights are published and not here."""
    file = None if network.train else weights_of(network, work.out, work.scale)
    return file is not None and not file.is_file()


def _price(network: Network, image: Tensor, options: PaperOptions) -> Price:
    """Of a pass of the network with random weights, which takes as long."""
    key = (network.model, tuple(image.shape), options.device)
    if key not in _PRICES:
        model = opened({"model": network.model}, device_name(options.device))
        _PRICES[key] = price_of(model, image.to(model.device))
    return _PRICES[key]


#: Measured once in a process, by model, size of the image and device.
_PRICES: dict[tuple[str, tuple[int, ...], str], Price] = {}


def _cells(what: str, lines: Sequence[Line]) -> tuple[str, ...]:
    images = max((line.images for line in lines), default=0)
    total = [line.all_of_it for line in lines if line.passes is not None]
    unknown = any(line.passes is None for line in lines)
    forward, backward = sum(each.forward for each in total), sum(each.backward for each in total)
    most = "≤ " if any(each.at_most for each in total) else ""
    passes = "?" if unknown and not total else f"{most}{forward:,}+{backward:,}{' + ?' if unknown else ''}"
    known = math.fsum(line.seconds for line in lines if not math.isnan(line.seconds))
    blind = any(math.isnan(line.seconds) and line.images for line in lines)
    return what, str(images), passes, "?" if blind and not known else clock(known)
