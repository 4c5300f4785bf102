"""``segradius assess``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segradius.cli.options import DataOptions, ModelOptions, RunOptions
from segradius.core.declared import Budget, Count, Positive, Seed, Sigma
from segradius.core.errors import InputError

if TYPE_CHECKING:
    from segradius.cli.assessment import Allowance
    from segradius.core.contracts import Seen

#: What is spent where nothing is said.
MINUTES, QUERIES = 10.0, 2000


def assess(
    data: DataOptions,
    model: ModelOptions,
    minutes: Positive | None = None,
    passes: Budget | None = None,
    eps: str | float | dict[str, Any] | list[Any] | None = None,
    policy: str | None = None,
    certify: bool = False,
    sigma: Sigma = 0.1,
    out: str = "segradius-assessment",
    seed: Seed = 0,
    device: str = "auto",
    batch_size: Count = 8,
    speed: Literal["plain", "exact", "fast"] = "plain",
    overwrite: bool = False,
    fail_on_set_aside: bool = False,
) -> int:
    """Assess a model before it is released: as much as a few minutes allow, for somebody who knows no attack.

    A pass over one image is measured; by that, a ladder of attacks from cheap to dear and a number of images from
    everywhere in the data are chosen for the time given. What will be done, how long it takes and what is left out is
    said before it is done. Then come a verdict by the rules in policy.yaml, the figures, also for images rounded to 8
    bits, the sanity checks, and plain words on what they mean; and a page, report.html, if the extra report is
    installed. Given again, the same command goes on where it was stopped; given more time, it adds to what is there. A
    target is asked by black-box attacks alone, within --budget queries.

    Args:
        data: See `DataOptions`; limit is the most images that are taken, always in spread order.
        model: See `ModelOptions`.
        minutes: What may be spent on a network. Default: 10.
        passes: The same in passes over an image, forward and backward counted each, in place of minutes.
        eps: Budgets ε of the attacks, the one of most interest first, as linf=1/255,4/255,l2=1.5. Default: those, and
            for a target linf=8/255,4/255.
        policy: YAML file with the rules of the verdict, as segradius gate takes it. Default: policy.yaml in the folder,
            which is written there with common rules, to be changed.
        certify: Certify a few images by randomized smoothing too, with a quarter of the budget at most.
        sigma: Of the noise of that.
        out: Folder of the assessment.
        seed: Seed of all random numbers, which are drawn for each image by its id.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Images at a time; changes no result but by rounding.
        speed: As in segradius attack.
        overwrite: Replace what another assessment left in the folder.
        fail_on_set_aside: End with exit status 3 where an image was set aside; the report is written all the same.

    Returns:
        The exit status: 0 for PASS or WARN, 4 for INCONCLUSIVE, 5 for BLOCK.
    """
    at = RunOptions(out, seed, device, batch_size, figures=0, speed=speed, overwrite=overwrite)  # the page has pictures
    at = replace(at, fail_on_set_aside=fail_on_set_aside)
    from segradius.cli.assessment import Assessment
    from segradius.report.policy import read_policy

    spread = replace(data, order="spread")
    model = replace(model, budget=model.budget or QUERIES) if model.target else model
    opened = spread.open()
    seen, chosen = model.open(opened, device, seed)
    allowance = _allowance(minutes, passes, model, seen)
    threats = _threats(eps, seen)
    smoothed = sigma if certify else None
    rules = None if policy is None else Path(policy)
    if rules is not None:
        read_policy(rules)  # before anything is run
    it = Assessment(seen, at.described(chosen), opened, spread.choice, at, allowance, threats, rules, smoothed)
    return it.carry_out()


def _allowance(minutes: float | None, passes: int | None, model: ModelOptions, seen: Seen) -> Allowance:
    """What may be spent; raises `InputError` where it is said in a unit that does not suit."""
    from segradius.cli.assessment import Allowance
    from segradius.evaluation.batch import is_priced

    if is_priced(seen):
        if minutes is not None or passes is not None:
            word = "minutes" if minutes is not None else "passes"
            raise InputError(f"{word} is for --model; what a target may be asked is --budget, in queries")
        return Allowance(model.budget or QUERIES, "queries")
    if minutes is not None and passes is not None:
        raise InputError(f"minutes is {minutes:g} and passes is {passes}; expected one of them")
    return Allowance(60 * (minutes or MINUTES), "seconds") if passes is None else Allowance(passes, "passes")


def _threats(eps: Any, seen: Seen) -> tuple[tuple[str, float], ...]:
    from segradius.evaluation.batch import is_priced
    from segradius.evaluation.ladder import TARGET_THREATS, THREATS
    from segradius.threats.budgets import budgets

    if eps is None:
        return TARGET_THREATS if is_priced(seen) else THREATS
    return tuple(dict.fromkeys(budgets(None, eps)))
