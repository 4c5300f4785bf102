"""Certificates against a square patch from predictions of masked images: by one mask detected, by two recovered from.

An image is looked at with no mask, with every mask of a set that covers all places of the patch, and with every two.
Under a mask that hides the patch, the changed image and the clean one are the same image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from segradius.certification.masks import Fill, hidden
from segradius.certification.votes import Answer, Predict, by_rows
from segradius.core.errors import InputError
from segradius.core.prediction import predict
from segradius.radius.smoothing import passes


@dataclass(frozen=True, eq=False)
class Looks:
    """What a model says of an image under no mask, one and two, for k masks.

    Attributes:
        plain: (H, W) int64, of the image itself.
        single: (k, H, W), under each mask: int16, or int32 where C would not fit.
        against: (k, H, W) int16, for each mask how many of the k − 1 predictions under it and another differ from that
            under it alone; None where no two masks were looked at.
        num_classes: C.
        finite: Whether every answer was finite; if not, the image has no certificate.
    """

    plain: Tensor
    single: Tensor
    against: Tensor | None
    num_classes: int
    finite: bool = True

    @cached_property
    def alarm(self) -> Tensor:
        """(H, W) bool: some mask changes the prediction, which a deployed detector tells as a possible patch."""
        return (self.single != self.plain).any(0)

    @property
    def detected(self) -> Tensor:
        """(H, W) bool, certified detection: with any patch, the prediction is as here or there is an alarm.

        The mask that hides the patch gives what it gives here, the prediction of the clean image; if the changed
        image's prediction is another, the two differ (Yatsura et al. 2023).
        """
        return ~self.alarm

    @property
    def recovered(self) -> Tensor:
        """(H, W) bool, certified recovery: `answer` of the image with any patch is as it is here.

        True where all predictions under one and two masks agree (Xiang, Mahloujifar & Mittal 2022, pixel by pixel).
        """
        return (self.single == self.single[0]).all(0) & self._upheld.all(0)

    @cached_property
    def answer(self) -> Tensor:
        """(H, W) int64, what the defended model says of the image: double masking, pixel by pixel.

        Where the masks disagree: what a mask says that the majority denies, if no second mask changes that (the first
        such, if there are several); else what the majority of masks says, the lowest class in a tie.

        Raises:
            InputError: No two masks were looked at.
        """
        return by_rows(partial(_double_masked, num_classes=self.num_classes), self.single, self._upheld)

    @property
    def _upheld(self) -> Tensor:
        """(k, H, W) bool, whether no second mask changes what a mask says."""
        if self.against is None:
            raise InputError("recovery needs the looks under two masks, and there are those under one alone")
        return self.against == 0


def _double_masked(single: Tensor, upheld: Tensor, num_classes: int) -> Tensor:
    """Answers (H, W) from what each mask says (k, H, W), and whether no second one changes that."""
    said = single.long()
    votes = single.new_zeros((num_classes, *single.shape[1:]), dtype=torch.int16)
    votes.scatter_add_(0, said, votes.new_ones(()).expand_as(said))
    majority = predict(votes.unsqueeze(0))[1].squeeze(0)
    heard = (said != majority) & upheld
    first = heard.to(torch.uint8).argmax(0, keepdim=True)
    return torch.where(heard.any(0), said.gather(0, first).squeeze(0), majority)


def looks_needed(masks: int, *, double: bool = True) -> int:
    """Forward passes over an image under each mask, and each two, beside the one under none.

    Example:
        >>> looks_needed(36), looks_needed(36, double=False)
        (666, 36)
    """
    return masks + (masks * (masks - 1) // 2 if double else 0)


@torch.no_grad()
def look(
    answer: Answer | Predict,
    image: Tensor,
    num_classes: int,
    masks: Tensor,
    fill: Fill,
    *,
    double: bool = True,
    plain: Tensor | None = None,
    together: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Looks:
    """What a model says of an image under all masks; memory O(k·H·W) beside that of a pass.

    Args:
        answer: The model: logits, scores or probabilities (n, C, H, W) of images (n, B, H, W); or the largest of these
            and its class, (n, H, W) each.
        image: (B, H, W) in [0, 1].
        num_classes: C.
        masks: (k, H, W) bool. The promises hold for patches of which one mask hides the whole, wherever they lie:
            `segradius.certification.masks.check_covers`.
        fill: What is seen in the place of hidden pixels.
        double: Whether two masks are looked at too.
        plain: (H, W) int64, what the model says of the image itself, if that is known: it is then not asked.
        together: Images in a pass; None for a number that suits the device. Changes no result but by rounding.
        progress: Called with the number of images just looked at.

    Example:
        >>> from segradius.certification.masks import FILLS, covering
        >>> seen = look(lambda x: x, torch.rand(3, 8, 8), 3, covering(2, 8, 8, 2, 2), FILLS["mean"])
        >>> seen.single.shape, bool((seen.answer == seen.plain)[seen.recovered & seen.detected].all())
        (torch.Size([4, 8, 8]), True)
    """
    masks, finite = masks.to(image.device), torch.ones((), dtype=torch.bool, device=image.device)
    count = len(masks)

    def seen(where: Tensor | None) -> Tensor:
        nonlocal finite
        images = image[None] if where is None else hidden(image.expand(len(where), *image.shape), where, fill)
        found = answer(images)
        top, classes = predict(found) if isinstance(found, Tensor) else found
        finite = finite & torch.stack(top.aminmax()).isfinite().all()
        if progress is not None:
            progress(len(classes))
        return classes

    def parts(end: int) -> list[slice]:
        return [slice(first, first + some) for first, some in passes(0, end, image.device, together=together)]

    plain = seen(None)[0] if plain is None else plain
    single = torch.empty(masks.shape, dtype=torch.int16 if num_classes < 2**15 else torch.int32, device=image.device)
    for part in parts(count):
        single[part] = seen(masks[part])
    against = None
    if double:
        against = torch.zeros(single.shape, dtype=torch.int16, device=image.device)
        one, other = torch.triu_indices(count, count, 1, device=image.device)
        for part in parts(len(one)):
            classes = seen(masks[one[part]] | masks[other[part]])
            for mask in (one[part], other[part]):
                against.index_add_(0, mask, (classes != single[mask]).to(torch.int16))
    return Looks(plain, single, against, num_classes, bool(finite))
