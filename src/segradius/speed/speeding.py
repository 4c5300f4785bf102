"""One setting of a model: the same network made cheaper for loops, while the network itself gives every verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from segradius.core.errors import InputError, ModelError
from segradius.models.outputs import check_images
from segradius.models.segmenter import Segmenter
from segradius.models.twins import Twins, marks
from segradius.speed.forms import PLAIN, Choice, Speed
from segradius.speed.remembered import recalled, remember
from segradius.speed.trial import Trial


def sped_up(
    model: Segmenter,
    images: Tensor,
    speed: Speed = "exact",
    *,
    compiled: bool = False,
    choice: Choice | None = None,
    told: Callable[[Choice], None] = lambda choice: None,
) -> Segmenter:
    """The same model, through whose cheaper forms loops look; what they find is judged by the model itself.

    Which forms those are is found by a trial of some seconds on the images, once for a network, a size of images and a
    machine. Attacks take gradients and weights from ``twins.guidance``; answers that are themselves counted, as those
    to a black-box attack, come from ``twins.answers``, which differs from the network by rounding alone.

    Args:
        model: From `segradius.wrap` or `segradius.load_model`. Its network is left as it is; weights that change
            afterwards are noticed by the next attack.
        images: (N, B, H, W) in [0, 1], a small batch like those to come.
        speed: ``plain``, ``exact`` or ``fast``; see `segradius.speed.chosen`.
        compiled: Try `torch.compile` too.
        choice: Of an earlier trial, in place of one.
        told: Given the choice.

    Raises:
        InputError: For a model or images that are not as said, another speed, or a choice that is none for this model.
        ModelError: A choice was given, and the model's logits have no gradient.

    Example:
        >>> import torch, segradius as sr
        >>> model, images = sr.load_model("demo"), torch.rand(2, 3, 48, 64)
        >>> quick = sped_up(model, images, "fast")
        >>> result = sr.attacks.pgd(norm="l2", eps=1.5, steps=3)(quick, images, torch.zeros(2, 48, 64).long())
        >>> bool((result.prediction == model.logits(result.adversarial).argmax(1)).all())
        True
    """
    if not isinstance(model, Segmenter):
        raise InputError(f"sped_up takes a Segmenter, such as wrap(network) gives; got a {type(model).__name__}")
    check_images(images)
    bare, images = replace(model, twins=None), images.to(model.device)
    if choice is None and speed == "plain" and not compiled:
        told(Choice(speed))
        return bare
    try:
        trial = Trial(bare, images)
    except ModelError as error:
        if choice is not None:
            raise
        told(Choice(speed, left=(f"every form: {error}",)))
        return bare
    if choice is not None and (why := trial.disagreement(choice)):
        raise InputError(f"the choice does not suit model {model.name!r}. {why}")
    choice = choice or recalled(bare, images, speed, compiled=compiled)
    if choice is None or trial.disagreement(choice):
        choice = trial.choose(speed, compiled=compiled)
        remember(bare, images, choice, compiled=compiled)
    told(choice)
    if choice.answers == choice.guidance == PLAIN:
        return bare
    forms = trial.formed(choice.answers), trial.formed(choice.guidance)
    return replace(bare, twins=Twins(*forms, model.network, marks(model.network)))
