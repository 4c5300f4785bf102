"""What is told together: runs of one model on the same data, in three sentences and with what stands against them."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from segradius.core.escapes import visible
from segradius.core.text import listed
from segradius.evaluation.certified_by import OWN_RADII, certified_by, condition
from segradius.evaluation.certify_summary import CertifiedRow
from segradius.metrics.intervals import LEAST, Interval
from segradius.report.cells import percent
from segradius.report.figures import Words
from segradius.report.story import CLEAN, Line, Story, Verdict

SIGNS = {"l1": "l1", "l2": "l2", "linf": "l∞", "l0": "l0"}
WORST = "worst of "
#: What two runs must share to be told together: a certificate is often of fewer images, which each row tells.
SAME = ("spec", "split", "size", "protocol", "labels", "void")

#: Of a model, the options without which a command would be about another one.
NETWORK = (
    *("weights", "num_classes", "normalisation", "outputs", "threshold", "channels", "output"),
    *("dtype", "denoiser", "answers", "input"),
)


@dataclass(frozen=True)
class Subject:
    """Runs of one model on the same data.

    Attributes:
        model: Its name.
        data: The data's.
        stories: At least one.
    """

    model: str
    data: str
    stories: tuple[Story, ...]

    @property
    def title(self) -> str:
        """For a heading."""
        return f"{self.model} on {self.data}"

    @cached_property
    def attacked(self) -> tuple[Story, ...]:
        """Runs that judged or attacked images."""
        return tuple(story for story in self.stories if story.lines)

    @cached_property
    def certified(self) -> tuple[Story, ...]:
        """Runs that certified."""
        return tuple(story for story in self.stories if story.answers)

    @property
    def words(self) -> Words:
        """What pixels that agree with their labels are called."""
        return self.stories[0].words

    @property
    def right(self) -> str:
        """What pixels are that agree with their labels, behind their number."""
        sets = any(story.structures for story in self.stories)
        return f"with {self.words.pixacc}" if sets else self.words.right

    @property
    def asked(self) -> str:
        """What Dice is of, where something is asked with yes or no; else empty."""
        return next((story.asked for story in self.attacked), "")

    @property
    def targeted(self) -> bool:
        """Whether the attacks had an aim, and go by the pixels that are where it is."""
        return any(story.targeted for story in self.attacked)

    @property
    def measure(self) -> str:
        """The share by which attacks are ranked."""
        return "success" if self.targeted else "pixacc"

    @property
    def measured(self) -> str:
        """What that is called."""
        return "pixels where aimed" if self.targeted else self.words.pixacc

    @cached_property
    def lines(self) -> tuple[tuple[Story, Line], ...]:
        """Attacks at their budgets, in the order of norms, budgets and runs."""
        found = [(story, line) for story in self.attacked for line in story.lines if line.plan != CLEAN]
        return tuple(sorted(found, key=lambda each: each[1].plan[1:]))

    @cached_property
    def strongest(self) -> tuple[tuple[Story, Line], ...]:
        """For each norm, what left least: mostly at its largest budget, save where that had weaker attacks alone."""
        found, sign = [], -1 if self.targeted else 1
        for norm in dict.fromkeys(line.plan[1] for _, line in self.lines):
            mine = [each for each in self.lines if each[1].plan[1] == norm and not math.isnan(self._left(each[1]))]
            found += [min(mine, key=lambda each: sign * self._left(each[1]))] if mine else []
        return tuple(found)

    def _left(self, line: Line) -> float:
        return line.shares[self.measure].value

    @cached_property
    def certificate(self) -> tuple[Story, CertifiedRow] | None:
        """Of all certificates that stand, the one of the largest product of accuracy and radius; else one of masks."""
        rows = [(story, row) for story in self.certified if not story.refuted for row in story.answers if row.promise]
        found = [each for each in rows if not math.isnan(each[1].radius)]
        if found:
            return max(found, key=lambda each: each[1].pixacc.value * each[1].radius)
        return rows[0] if rows else None

    @property
    def verdicts(self) -> Iterator[tuple[Story, Verdict]]:
        """Sanity verdicts of all runs."""
        for story in self.stories:
            yield from ((story, each) for each in story.verdicts or ())

    @property
    def alarms(self) -> list[tuple[Story, Verdict]]:
        """What a reader must see first: checks that failed, and warnings."""
        failed = [each for each in self.verdicts if each[1].grade == "fail"]
        told = [verdict.text for _, verdict in failed]
        warned = [(story, each) for story in self.stories for each in story.warnings]
        return failed + [(story, each) for story, each in warned if not any(each.text in words for words in told)]


def subjects(stories: Sequence[Story]) -> tuple[Subject, ...]:
    """Runs by what they are of, in order.

    Args:
        stories: From `segradius.report.story.read_story`.
    """
    found: dict[str, list[Story]] = {}
    for story in stories:
        model, data = story.experiment["model"], story.experiment["data"]
        key = [model["spec"], model.get("fingerprint"), *(data.get(name) for name in SAME)]
        found.setdefault(json.dumps([*key, story.experiment.get("target")], default=str), []).append(story)
    several = [_names(group[0]) for group in found.values()]
    alike = {names for names in several if several.count(names) > 1}
    return tuple(
        Subject(
            f"{names[0]} ({visible(str(_fingerprint(group[0])))})" if names in alike else names[0],
            names[1],
            tuple(group),
        )
        for names, group in zip(several, found.values(), strict=True)
    )


def _fingerprint(story: Story) -> str:
    return str(story.experiment["model"].get("fingerprint") or "no fingerprint")[:8]


def _names(story: Story) -> tuple[str, str]:
    model, data = story.experiment["model"], story.experiment["data"]
    size = f" at {data['size'][0]}×{data['size'][1]}" if data.get("size") else ""
    protocol = f", protocol {data['protocol']}" if data.get("protocol") else ""
    void = f", void counts as {data['void']}" if data.get("void") else ""
    split = f", {data['split']}" if data.get("split") else ""
    aim = f", aim {story.experiment['target']}" if story.experiment.get("target") is not None else ""
    short = str(model["spec"]).partition(",")[0]  # the rest stands in the command
    label = story.run.model
    called = f"{label} ({short})" if label.partition(",")[0] not in ("", short) else short
    called += f" from {' and '.join(model['surrogates'])}" if model.get("surrogates") else ""
    return visible(called), visible(f"{data['spec']}{split}{size}{protocol}{void}{aim}")


def budget(norm: str, eps: float) -> str:
    """ε as people write it: in 1/255 where that is a round number of l∞.

    Example:
        >>> budget("linf", 4 / 255), budget("linf", 0.006), budget("l2", 1.5)
        ('4/255', '0.006', '1.5')
    """
    levels = 255 * eps
    whole = norm == "linf" and levels > 0 and abs(2 * levels - round(2 * levels)) < 1e-6
    return f"{round(2 * levels) / 2:g}/255" if whole else f"{eps:.4g}"


def at(norm: str, eps: float) -> str:
    """A budget in its norm.

    Example:
        >>> at("linf", 4 / 255), at("l2", 0.5)
        ('l∞ 4/255', 'l2 0.5')
    """
    return f"{SIGNS.get(norm, norm)} {budget(norm, eps)}"


def cent(found: Interval) -> str:
    """A share in per cent, for a sentence.

    Example:
        >>> cent(Interval(0.912, 0.901, 0.92))
        '91.2 % [90.1, 92.0]'
    """
    value, bracket, rest = percent(found.value, found).partition(" [")
    return f"{value} %{bracket}{rest}"


def sentences(subject: Subject) -> list[str]:
    """What a person must know: unattacked, under attack, certified; each with its interval.

    Args:
        subject: What is told.
    """
    return [_unattacked(subject), _under_attack(subject), _proven(subject)]


def _few(images: int) -> str:
    return f"{images} image{'s' * (images != 1)}" + (", too few for an interval" if images < LEAST else "")


def _unattacked(subject: Subject) -> str:
    if subject.attacked:
        line = subject.attacked[0].lines[0]
        found, images, shares = line.shares["pixacc"], line.images, line.shares
    else:
        story = subject.certified[0]
        found, images, shares = story.answers[0].pixacc, story.certified_images, {}
    said = subject.words
    if subject.stories[0].experiment["data"].get("labels") == "predicted":
        return (
            f"There are no labels: what the network says of the {_few(images)} unattacked is taken for right, so that "
            f"every figure here is a stability, the share of {said.whole}."
        )
    dice = f"Dice ({subject.asked}) is {cent(shares['dice'])}, and " if subject.asked and "dice" in shares else ""
    return f"Unattacked, {dice}the network gets {cent(found)} of pixels {subject.right} on {_few(images)}."


def _under_attack(subject: Subject) -> str:
    if not subject.strongest:
        if any(story.left for story in subject.certified):
            return "It was attacked inside its certificates only."
        return "No attack was run, so nothing is known of its robustness."
    told: list[str] = []
    verb = ("brings", " where it aims") if subject.targeted else ("leaves", f" {subject.right}")
    for _, line in subject.strongest:
        found = cent(line.shares[subject.measure])
        name, norm, eps = line.plan
        named = f"the {name} attacks" if name.startswith(WORST) else name
        rounded = None if subject.targeted else line.shares.get("rounded_pixacc")
        more = f" ({cent(rounded)} after rounding to 8 bits)" if rounded and _apart(rounded, line) else ""
        more += f", Dice {cent(line.shares['dice'])}" if subject.asked and "dice" in line.shares else ""
        what = "" if told else f" of pixels{verb[1]}"
        told.append(f"{found}{what} at {at(norm, eps)} ({named}){more}")
    images = min(line.images for _, line in subject.strongest)
    return f"The strongest attack tried {verb[0]} {' and '.join(told)}, on {_few(images)}."


def _apart(rounded: Interval, line: Line) -> bool:
    """Whether rounding changes what a reader would make of it, which is half a point."""
    return abs(rounded.value - line.shares["pixacc"].value) >= 0.005


def _proven(subject: Subject) -> str:
    found = [
        f"The certificates of {story.run.name} are REFUTED: {story.refuted[0]} found what they exclude."
        for story in subject.certified
        if story.refuted
    ]
    if subject.certificate is not None:
        found.append(_certified(subject, *subject.certificate))
    return " ".join(found) or "Nothing is certified, so a stronger attack may leave less."


def _certified(subject: Subject, story: Story, row: CertifiedRow) -> str:
    under, images, right = condition(story.experiment), _few(story.certified_images), subject.right
    if story.whole:
        radius, share = least_of(story)
        changes = f"under every change of l2 length up to {radius:.3g} of each image"
        return f"Certified, by {under}: at least {100 * share:.1f} % of pixels stay {right} {changes}, on {images}."
    if certified_by(story.experiment) == "masks":
        stay = f"stay {right}" if row.name == "recovery" else f"stay {right}, or an alarm is raised there,"
        return f"Certified, {under}: {cent(row.pixacc)} of pixels {stay} whatever is in such a square, on {images}."
    own = row.name in OWN_RADII
    where = f"its own l2 radius, {row.radius:.3g} on average" if own else f"l2 {_down(row.radius):g}"
    return (
        f"Certified, for the network smoothed by noise of {under}: {cent(row.pixacc)} of pixels stay "
        f"{right}{', each' * own} under every change within {where}, on {images}."
    )


def least_of(story: Story) -> tuple[float, float]:
    """Of a certificate of whole images, a quarter of the largest radius told and what stays right there at least."""
    return story.whole[len(story.whole) // 4]


def _down(radius: float) -> float:
    """Four decimals, never rounded up."""
    return int(radius * 1e4 + 1e-9) / 1e4


def attack_command(subject: Subject, norm: str = "l2") -> str:
    """A command that would attack it.

    Args:
        subject: What is told.
        norm: Of the attacks.
    """
    eps = {"l2": "l2=0.5,1.5", "linf": "linf=2/255,4/255"}[norm]
    return _command(subject, "attack", "--attack", "flips,pgd,cr_pgd", "--eps", eps)


def certify_command(subject: Subject) -> str:
    """A command that would certify it."""
    return _command(subject, "certify", "--sigma", "0.25", "--radii", "one", "--limit", "16")


def _command(subject: Subject, *words: str) -> str:
    if not subject.stories[0].command:  # made from Python, with a model that no command names
        return f"segradius {words[0]} --help"
    model, data = subject.stories[0].experiment["model"], subject.stories[0].experiment["data"]
    found = ["segradius", words[0], "--target" if model.get("scores_only") else "--model", str(model["spec"])]
    for name in NETWORK:
        if (value := model.get(name)) is not None:
            found += [f"--{name.replace('_', '-')}", listed(value)]
    if model.get("surrogates") and words[0] == "attack":
        found += ["--from", listed(model["surrogates"])]
        files = model.get("surrogate_weights") or ()
        found += ["--from-weights", ",".join(each or "" for each in files)] if files else []
        found += ["--from-mean", model["surrogate_mean"]] if model.get("surrogate_mean") else []
    found += ["--data", str(data["spec"])]
    for name in ("split", "protocol", "void"):
        found += [f"--{name}", str(data[name])] if data.get(name) else []
    found += ["--size", f"{data['size'][0]}x{data['size'][1]}"] if data.get("size") else []
    found += ["--labels", "predicted"] if data.get("labels") == "predicted" else []
    return visible(shlex.join([*found, *words[1:], "--out", f"{subject.stories[0].run.name}-{words[0]}"]))
