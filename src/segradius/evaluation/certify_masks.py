"""Certificates against a patch by masks, as a way of certifying: detection from one mask, recovery from two."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from segradius.attacks.make import make_attack
from segradius.attacks.patch import side_of
from segradius.certification.certificate import Certificate
from segradius.certification.certifiers import Hierarchy
from segradius.certification.double_masking import look, looks_needed
from segradius.certification.masks import FILLS, Fill, covering
from segradius.certification.patch_check import Patch, patches
from segradius.core.contracts import Journal, Model, Seen, for_answers
from segradius.core.declared import MaskCount, Share, check_fields
from segradius.core.ledger import Ledger
from segradius.evaluation.batch import Batch, Bench, answering
from segradius.evaluation.contradicting import Attacks, Found
from segradius.evaluation.record import Kind, Record, Score, score_answer, score_certificate


@dataclass(frozen=True)
class Masks:
    """How every image is certified against any change inside one square, wherever it lies.

    Args:
        patch: Share of the pixels of an image, of which the largest square of at most so many is taken.
        masks: From top to bottom, and from left to right.
        fill: What is seen in the place of hidden pixels, of `segradius.certification.FILLS`.
        recovery: Whether recovery is certified beside detection; it takes a pass for every two masks.

    Raises:
        InputError: For a value out of range.
    """

    patch: Share
    masks: tuple[MaskCount, MaskCount] = (6, 6)
    fill: str = "pyramid"
    recovery: bool = True

    key: ClassVar[str] = "masks"
    unit: ClassVar[str] = "looks"
    autocast: ClassVar[None] = None
    bounds: ClassVar[list[float]] = [0.0, 1.0]

    def __post_init__(self) -> None:
        check_fields(self)
        _ = FILLS[self.fill]

    @property
    def passes(self) -> tuple[int, bool]:
        """Looks at an image under masks; of a small one fewer masks may cover all places."""
        return looks_needed(self.masks[0] * self.masks[1], double=self.recovery), True

    @property
    def title(self) -> str:
        """For people."""
        return f"certifying against {self.short}"

    @property
    def short(self) -> str:
        """In the heading of a picture."""
        return f"patch {100 * self.patch:g} %"

    def heading(self) -> list[str]:
        """What was certified, in parts of a line."""
        masks = " × ".join(map(str, self.masks))
        return [f"against any square of {100 * self.patch:g} % of the pixels", f"masks {masks}", f"fill {self.fill}"]

    def groups(self, names: Any) -> Hierarchy | None:
        """None: classes are not grouped."""
        return None

    def promised(self, kind: str, promised: str) -> str:
        """What is promised of an image, in a sentence; nothing of the answers of the defended model as such."""
        if kind == DEFENDED:
            return ""
        keeps = {
            DETECTION: (
                "the model's class is that of the image without it, or the masks tell of a change there. Without a "
                "patch they do so wherever a pixel is not certified"
            ),
            RECOVERY: "the class that double masking gives is that which it gives of the image without it",
        }
        return (
            f"Whatever is put inside one square of at most {100 * self.patch:g} % of an image's pixels, anywhere, at "
            f"every certified pixel, those under the square too, {keeps[kind]}. With certainty."
        )

    def check(self, model: Seen) -> None:
        """Anything that gives classes will do."""

    def record(self, batch: Batch, bench: Bench, journal: Journal | None = None) -> Record:
        """The certificates of a batch of one image, and what they are worth; of the model's prediction no new pass."""
        classes, ignore, labels = bench.model.num_classes, batch.ignore_index, batch.labels[0]
        masks, fill = self.hiding(batch)
        found = look(
            answering(for_answers(bench.model)), batch.images[0], classes, masks, fill, double=self.recovery,
            plain=batch.prediction[0], together=bench.together, progress=bench.progress,
        )  # fmt: skip
        score = partial(score_answer, labels=labels, num_classes=classes, ignore_index=ignore,
                        structures=batch.structures)  # fmt: skip

        def kind(answer: Tensor, sure: Tensor) -> Kind:
            made = Certificate(answer, sure, torch.zeros(sure.shape, device=sure.device), 0.0, 0.0, "certain")
            worth = score_certificate(made, labels, classes, ignore, self.bounds, structures=batch.structures)
            return Kind(made.prediction, made.radius, None, made.promise, worth)

        kinds = {}
        if self.recovery:
            kinds[RECOVERY] = kind(found.answer, found.recovered & found.finite)
        kinds[DETECTION] = kind(found.plain, found.detected & found.finite)
        if self.recovery:
            kinds[DEFENDED] = kind(found.answer, torch.ones_like(found.alarm))
        passes = {"judging": (1, 0), "certification": (looks_needed(len(masks), double=self.recovery), 0)}
        base = batch.prediction[0]
        return Record(batch.ids[0], base, score(base), kinds, finite=found.finite, passes=passes)

    def hiding(self, batch: Batch) -> tuple[Tensor, Fill]:
        """The masks (k, H, W) for images of a batch, and the fill."""
        height, width = batch.images.shape[-2:]
        masks = covering(side_of(self.patch, height, width), height, width, *self.masks)
        return masks.to(batch.images.device), FILLS[self.fill]

    def attacked(self, record: Record, batch: Batch, bench: Bench, asked: Attacks, ledger: Ledger) -> Iterable[Found]:
        """Every attack, on the model and on its masked views."""
        device = batch.images.device
        promised = {
            name: record.kinds[name].classes.to(device) for name in (DETECTION, RECOVERY) if name in record.kinds
        }
        base = batch.prediction[0]
        said = (base, record.kinds[DEFENDED].classes.to(device) if self.recovery else base)
        for name in asked.attacks:
            made = patches(
                cast(Model, bench.model), batch.images[0], said, *self.hiding(batch), self.patch, ledger,
                attack=partial(make_attack, name, steps=asked.steps), double=self.recovery, together=bench.together,
                image_id=record.image, seed=bench.seed,
            )  # fmt: skip
            for patch in made:
                for kind, classes in promised.items():
                    yield _found(name, kind, patch, classes, record.kinds[kind].score, batch)


#: The certificates, and the answers of the defended model, whatever is certified of them.
DETECTION, RECOVERY, DEFENDED = "detection", "recovery", "defended"


def _found(name: str, kind: str, patch: Patch, classes: Tensor, score: Score, batch: Batch) -> Found:
    """What an attack left of a certificate: right answers; for detection, of the model, or alarms."""
    labels, after = batch.labels[0], patch.after
    if kind == DETECTION:
        lost, stands = patch.undetected(classes), (after.plain == labels) | after.alarm
    else:
        lost, stands = patch.unrecovered(classes), after.answer == labels
    counted = labels != batch.ignore_index
    numbers = [int(each.sum()) for each in (counted, stands & counted, lost)]
    promised = sum(score.pixels.intersection)
    caught = numbers[2] > 0 or numbers[1] < promised
    return Found(f"{name} on the {patch.seen}", kind, numbers[0], promised, numbers[1], numbers[2], None, caught)
