"""Attacks with a patch on the promises that were made against it, judged by all the looks of the deployed defence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from segradius.attacks.base import Attack
from segradius.attacks.make import make_attack
from segradius.certification.demasked import Demasked
from segradius.certification.double_masking import Looks, look, looks_needed
from segradius.certification.masks import Fill
from segradius.core.contracts import Model, for_answers
from segradius.core.ledger import Ledger
from segradius.core.prediction import predicted

#: What is attacked: the model as it is, and the mean of its views under all masks.
ALONE, MASKED = "model", "masked views"

#: The attack unless another is given.
FLIPS = partial(make_attack, "flips", steps=30)


@dataclass(frozen=True, eq=False)
class Patch:
    """What came of one attack on one image.

    Attributes:
        seen: What was attacked, `ALONE` or `MASKED`.
        place: Row and column of the patch's first pixel.
        image: (B, H, W) with the patch.
        after: Looks at it.
    """

    seen: str
    place: tuple[int, int]
    image: Tensor
    after: Looks

    def undetected(self, classes: Tensor) -> Tensor:
        """(H, W) bool: pixels with another prediction and no alarm, of those certified to have one of both.

        Args:
            classes: (H, W), the certified class; −1 where nothing is promised.
        """
        return (classes >= 0) & (self.after.plain != classes) & ~self.after.alarm

    def unrecovered(self, classes: Tensor) -> Tensor:
        """(H, W) bool: pixels with another answer of the defended model, of those certified to keep it; likewise."""
        return (classes >= 0) & (self.after.answer != classes)


def patches(
    model: Model,
    image: Tensor,
    clean: tuple[Tensor, Tensor],
    masks: Tensor,
    fill: Fill,
    share: float,
    ledger: Ledger,
    *,
    attack: Callable[..., Attack] = FLIPS,
    double: bool = True,
    together: int | None = None,
    image_id: str = "0",
    seed: int = 0,
) -> Iterator[Patch]:
    """Attack an image with a patch of any values: the model at a place that is searched, then its masked views there.

    Args:
        model: What was certified.
        image: (B, H, W) in [0, 1].
        clean: What the model says of the image, and the defended model, (H, W) int64 each: the attacks turn it.
        masks: (k, H, W) bool, of the certificate.
        fill: Of the certificate.
        share: Of the image in the patch; `segradius.attacks.patch.side_of` makes its side.
        ledger: Of one image; takes all passes over the model.
        attack: Given ``norm=``, ``eps=``, ``patch=`` and ``place=``, a white-box attack.
        double: Whether the defence looks under two masks.
        together: Images in a pass of the looks. Take that of the certificate: rounding may depend on it.
        image_id: Keys the random numbers.
        seed: The same.

    Example:
        >>> import torch
        >>> import segradius as sr
        >>> from segradius.attacks.patch import side_of
        >>> from segradius.certification import FILLS, covering
        >>> model, image = sr.wrap(torch.nn.Conv2d(3, 2, 3, padding=1)), torch.rand(3, 8, 8)
        >>> masks, fill = covering(side_of(0.05, 8, 8), 8, 8, 2, 2), FILLS["mean"]
        >>> clean = look(model.top_class, image, 2, masks, fill)
        >>> promised = torch.where(clean.recovered, clean.answer, -1)
        >>> found = patches(model, image, (clean.plain, clean.answer), masks, fill, 0.05, Ledger(1))
        >>> [(each.seen, int(each.unrecovered(promised).sum())) for each in found]
        [('model', 0), ('masked views', 0)]
    """
    under, place = Demasked(model, masks, fill), "search"
    answer = partial(predicted, for_answers(model))
    for seen, name, said in ((model, ALONE, clean[0]), (under, MASKED, clean[1])):
        made = attack(norm="linf", eps="inf", patch=share, place=place)
        found = made(seen, image[None], said[None], ids=(image_id,), seed=seed, ignore_index=model.num_classes)
        ledger.add(under.charged(found.ledger) if name == MASKED else found.ledger)
        assert found.covered is not None
        first = found.covered[0].nonzero()[0].tolist()
        place = f"{first[0]}:{first[1]}"
        with model.frozen():
            after = look(answer, found.adversarial[0], model.num_classes, masks, fill, double=double, together=together)
        ledger.enter("certification", forward=1 + looks_needed(len(masks), double=double))
        yield Patch(name, (first[0], first[1]), found.adversarial[0], after)
