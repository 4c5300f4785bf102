"""A run whose model has the cheaper forms that a speed asks for, chosen once and the same when it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

from torch import Tensor

from segradius.core.contracts import Seen, surrogate_of
from segradius.core.errors import InputError
from segradius.evaluation.batch import is_priced
from segradius.evaluation.run import Run, S, first_usable, work
from segradius.evaluation.store import Store
from segradius.models.segmenter import Segmenter
from segradius.speed.forms import Choice, Speed
from segradius.speed.speeding import sped_up
from segradius.targets.transfer import with_surrogate

#: Under which a store has what was chosen.
NOTE = "speed"


def quick(model: Seen, images: Tensor, speed: Speed, **how: Any) -> Seen:
    """A network with the cheaper forms that a speed asks for; where it has a surrogate, that has them.

    Args:
        model: A network, or a model with a surrogate.
        images: As `segradius.speed.sped_up` takes them, like the speed.
        speed: The same.
        **how: Further arguments of it.

    Raises:
        InputError: Adversarial images are made on the mean of several networks, in which no layers are looked for.
    """
    made_on = surrogate_of(model)
    if made_on is None:
        return sped_up(cast(Segmenter, model), images, speed, **how)
    if getattr(made_on.network, "passes", 1) > 1:
        raise InputError(
            f"speed is {speed}; expected plain where adversarial images are made on the mean of several networks"
        )
    return with_surrogate(model, lambda network: sped_up(network, images, speed, **how))


def quickened(
    run: Run[S], store: Store, speed: Speed, *, compiled: bool = False, told: Callable[[Choice], None]
) -> Run[S]:
    """The run with `segradius.speed.sped_up` done to its model; as it is where nothing is left to do.

    Args:
        run: What is to be run.
        store: Of its results. A choice that was made for it before is used again, as another one could round otherwise;
            where it suits no more, as on another machine, the trial is made anew, and the new choice says so.
        speed: What is asked for.
        compiled: Whether `torch.compile` is tried.
        told: Given the choice.

    Raises:
        InputError: The model is a target, whose passes are not ours.
    """
    if speed == "plain" and not compiled:
        return run
    if is_priced(run.model) and surrogate_of(run.model) is None:
        asked = "compile" if speed == "plain" else f"speed {speed}"
        raise InputError(f"{asked} is for --model, whose passes are made here; a target answers as it does")
    first = first_usable(run) if work(run, store) else None
    if first is None:
        return run
    kept, refused, chosen = store.noted(NOTE), list[str](), list[Choice]()

    def noted(found: Choice) -> None:
        found = replace(found, left=(*refused, *found.left))
        chosen.append(found)
        store.note(NOTE, {"asked": [speed, compiled], "choice": found.as_dict()})
        told(found)

    made = partial(quick, run.model, first.image[None], speed, compiled=compiled, told=noted)
    if kept and kept["asked"] == [speed, compiled]:
        try:
            model = made(choice=Choice.of(kept["choice"]))
            return replace(run, model=model, choice=chosen[-1])
        except InputError as error:
            refused.append(f"what this run began with, as {error}")
    model = made()
    return replace(run, model=model, choice=chosen[-1])
