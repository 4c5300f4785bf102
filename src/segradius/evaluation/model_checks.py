"""Checks of what a network gives before a run: outputs, gradient, state, normalisation."""

from __future__ import annotations

import math

from segradius.evaluation.facts import CHECKS, Facts, Finding, better_prepared
from segradius.evaluation.preparations import preparations, written
from segradius.models.decoding import IN_UNIT, OTHER, YES_NO


@CHECKS.register("classes")
def _classes(it: Facts) -> Finding | None:
    if len(it.names) <= it.labels or it.data.predicted:
        return None
    text = f"the model predicts {len(it.names)} classes and the data set has {it.labels}"
    return Finding("classes", text, "are these its classes?", len(it.names) - it.labels)


@CHECKS.register("outputs")
def _outputs(it: Facts) -> Finding | None:
    low, high, (least, most) = it.seen.low, it.seen.high, it.seen.total
    if it.outputs in IN_UNIT:
        return None  # they were undone
    if it.outputs in YES_NO:
        if not (low >= 0 and high <= 1):
            return None
        what, advice = "as sigmoids do", f"if the network ends in one, give --outputs {OTHER[it.outputs]}"
    elif low >= 0 and high <= 1:
        what, advice = (
            "as sigmoids do",
            "if the network ends in one, remove it, or give --outputs sigmoids (multilabel, if a pixel may be several)",
        )
    elif -1 <= low < -0.9 and 0.9 < high <= 1:
        what, advice = "as a tanh or a cosine does", "attacks find too little without the scale that training had"
    elif low >= 0 and most - least <= 0.01 * most:
        what, advice = (
            f"and sum to {most:.4g} over the classes",
            "if they are probabilities, give --outputs probabilities",
        )
    else:
        return None
    return Finding("outputs", f"the logits run from {low:.4g} to {high:.4g} only, {what}", advice, high - low)


@CHECKS.register("saturated")
def _saturated(it: Facts) -> Finding | None:
    share = it.sure if math.isnan(it.seen.sure) else it.seen.sure
    if not share >= 0.25:
        return None
    if it.outputs in IN_UNIT and it.outputs != "probabilities":
        text = f"at {share:.1%} of the pixels a sigmoid of the model is exactly 0 or 1, where no gradient is left"
        way = f", with --outputs {OTHER[it.outputs]}" if it.outputs in YES_NO else ""
        return Finding("saturated", text, f"attacks find too little: give the network without its sigmoid{way}", share)
    text = f"at {share:.1%} of the pixels the model's confidence is exactly 1, where cross-entropy has no slope"
    if math.isnan(it.sure):
        margin = f"dag{_with_loss(it, 'margin', ', or ')}"
        advice = f"attacks on cross-entropy find too little: follow the margin ({margin}), or undo the scale"
    else:
        advice = "attacks on scores find too little" + _with_loss(it, "wrong", "; ", " counts labels alone")
    return Finding("saturated", text, advice, share)


def _with_loss(it: Facts, loss: str, before: str, after: str = "") -> str:
    """How the attacks of the run are given that loss, between two words; nothing if none takes it, or all have it."""
    labels = [label for label, own in it.losses if own != loss]
    told = ",".join(f"{label}.loss={loss}" for label in labels) if len(labels) <= 3 else f"loss={loss}"
    return f"{before}--options {told}{after}" if labels else ""


@CHECKS.register("state")
def _state(it: Facts) -> Finding | None:
    if not it.seen.changed:
        return None
    more = f" and {len(it.seen.changed) - 3} more" if len(it.seen.changed) > 3 else ""
    text = f"a pass in evaluation mode changes the network ({', '.join(it.seen.changed[:3])}{more})"
    advice = "what it makes of an image depends on those before it, so figures depend on their order: keep it from that"
    return Finding("state", text, advice, len(it.seen.changed))


@CHECKS.register("unsteady")
def _unsteady(it: Facts) -> Finding | None:
    seen = it.seen
    if not seen.unsteady:
        return None
    share = f"{seen.moves:.1%} of the largest logit"
    text = f"two passes over one image differ by up to {share} on {len(seen.unsteady)} of {len(seen.images)}"
    advice = (
        "is a dropout or a noise left on in evaluation mode, or a state kept between passes? What an attack finds "
        "is not what the next pass sees: turn it off, or average over passes inside the network"
    )
    return Finding("unsteady", text, advice, seen.moves)


@CHECKS.register("gradient")
def _gradient(it: Facts) -> Finding | None:
    seen = it.seen
    if not it.follows or not seen.gradient:
        return None
    of = f"of {len(seen.images)} images looked at"
    if seen.broken:
        text, value = f"the gradient has NaN or infinite values on {len(seen.broken)} {of}", len(seen.broken)
        return Finding("gradient", text, "white-box attacks cannot follow it", value)
    if seen.deaf:
        advice = (
            "something in the network has none, as rounding, an argmax or a cast to whole numbers, and white-box "
            "attacks have nothing to follow: ask it as a --target, by black-box attacks"
        )
        return Finding("gradient", f"the gradient is exactly zero on {len(seen.deaf)} {of}", advice, len(seen.deaf))
    sure = "the network is surer than its precision tells: compute in float32, or attack the logits' margin (dag)"
    if seen.still:
        text = f"the gradient of cross-entropy is exactly zero on {len(seen.still)} {of}"
        return Finding("gradient", text, sure, len(seen.still))
    if seen.flat >= 0.5:
        return Finding("gradient", f"{seen.flat:.1%} of the gradient's values are exactly zero", sure, seen.flat)
    return None


@CHECKS.register("masked")
def _masked(it: Facts) -> Finding | None:
    seen = it.seen
    moved = max(abs(seen.climb), abs(seen.noise)) > 1e-6  # not where there is no number
    if not it.follows or seen.still or not moved or seen.climb > seen.noise:
        return None
    text = f"a step along the gradient changes the loss by {seen.climb:.3g}, a random one as long by {seen.noise:.3g}"
    advice = "the gradient is masked, and white-box attacks find too little: ask it as a --target, by black-box attacks"
    return Finding("masked", text, advice, seen.noise - seen.climb)


@CHECKS.register("agreement")
def _agreement(it: Facts) -> Finding | None:
    mirrored, brighter = it.seen.flipped, it.seen.brighter
    if mirrored < 0.5:
        text, value = f"only {mirrored:.1%} of the pixels keep their class in the mirror image", mirrored
    elif brighter < 0.7:
        text, value = f"only {brighter:.1%} of the pixels keep their class when the image is 5 % brighter", brighter
    else:
        return None
    return Finding(
        "agreement", text, "is the network trained, and are its weights and normalisation the right ones?", value
    )


@CHECKS.register("normalisation")
def _normalisation(it: Facts) -> Finding | None:
    better = better_prepared(it)
    if not better:
        return None
    told = " or ".join(f"{miou:.3f} with {what}" for what, miou in better.items())
    text = f"MIoU of the images looked at is {it.seen.miou:.3f}, and under another normalisation {told}"
    known = preparations(it.seen.bands or 3)
    ways = ", or ".join(f"--normalisation {written(known[what])}" for what in better)
    which = "which the network may have been" if len(better) == 1 else "whichever the network was"
    return Finding("normalisation", text, f"give {ways}, {which} trained with", max(better.values()))
