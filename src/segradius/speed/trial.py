"""What pays: forms of a network, each compared with the network as it is and timed against it, in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from segradius.core.border import at_border, in_a_line, is_out_of_memory, release
from segradius.core.errors import ModelError
from segradius.models.segmenter import Segmenter
from segradius.speed.forming import NotFormedError, formed
from segradius.speed.forms import PLAIN, Choice, Form, Speed

#: Largest difference of logits that counts as rounding, over the largest logit.
LOGITS = 1e-3
#: Largest difference of gradients that does, over their length: a value near 0 may change the side of a kink.
GRADIENT = 2e-2
#: Least cosine of a gradient in reduced precision with that of the network.
COSINE = 0.9
#: A form must save as much of the time of a simpler one.
SAVES = 0.03
#: Interleaved rounds, and seconds after which no further one is begun.
ROUNDS, SECONDS = 5, 6.0


@dataclass(frozen=True, eq=False)
class Look:
    """What one forward and backward pass shows: logits (N, C, H, W), gradient (N, B, H, W)."""

    logits: Tensor
    gradient: Tensor


@dataclass
class _Tried:
    """A form that agrees with the network, and its least times of passes so far, in seconds."""

    form: Form
    model: Segmenter
    passes: float = float("inf")
    forward: float = float("inf")


def chosen(
    model: Segmenter,
    images: Tensor,
    speed: Speed = "exact",
    *,
    compiled: bool = False,
    clock: Callable[[], float] | None = None,
) -> Choice:
    """What makes passes over images like these cheaper, by a trial.

    Every form is first compared with the network, on the images and on noise; one that differs by more than its
    ``speed`` allows, or fails, is left, and the choice says why.

    Args:
        model: The model.
        images: (N, B, H, W) in [0, 1], on its device.
        speed: ``exact``: forms that differ by rounding; ``fast``: of gradients also in reduced precision; ``plain``:
            nothing, save what ``compiled`` asks for.
        compiled: Try `torch.compile` too, whose warm-up may take minutes.
        clock: Seconds. None: those of the clock on the wall; where one thread on a CPU does all, the processor's, which
            others on the machine disturb less.

    Raises:
        InputError: For another speed.

    Example:
        >>> import segradius as sr
        >>> chosen(sr.load_model("demo"), torch.rand(1, 3, 48, 64), "plain").guidance
        Form(folded=False, channels_last=False, eased=False, precision=None, compiled=False)
    """
    choice = Choice(speed)
    if speed == "plain" and not compiled:
        return choice
    try:
        trial = Trial(replace(model, twins=None), images, clock)
    except ModelError as error:
        return replace(choice, left=(f"every form: {error}",))
    return trial.choose(speed, compiled=compiled)


def clock_of(device: str) -> Callable[[], float]:
    """Seconds for a trial on a device, as `chosen` has them."""
    return time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def _reduced(form: Form, device: str) -> list[Form]:
    """The form in reduced precision, in both layouts, as that may pay in one and not in the other."""
    reduced = replace(form, precision="bfloat16")
    forms = [reduced, replace(reduced, channels_last=not form.channels_last)]
    return forms if device != "cuda" else [*forms, replace(reduced, precision="float16")]


class Trial:
    """Forms of one model, compared and timed on the same images; what was made of the model is kept while it lasts.

    Args:
        model: Without cheaper forms.
        images: (N, B, H, W) in [0, 1], on its device.
        clock: As in `chosen`.

    Raises:
        ModelError: Its logits have no gradient in the images.
    """

    def __init__(self, model: Segmenter, images: Tensor, clock: Callable[[], float] | None = None) -> None:
        self.images, self.model, self.clock = images, model, clock or clock_of(images.device.type)
        self.tried, self.unfit = dict[Form, _Tried](), dict[Form, str]()
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0), dtype=images.dtype)
        self.noise = noise.to(images.device)
        shape = (len(images), model.num_classes, *images.shape[-2:])
        pull = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        self.pull = pull.to(images.device, torch.promote_types(images.dtype, torch.float32))
        self.plain = self._look(model, images), self._look(model, self.noise)
        self.tried[PLAIN] = _Tried(PLAIN, model)

    def choose(self, speed: Speed, *, compiled: bool = False) -> Choice:
        """What pays, as `chosen` has it."""
        answers, guidance = self.exact() if speed != "plain" else (PLAIN, PLAIN)
        if speed == "fast":
            guidance = self.best([guidance, *_reduced(guidance, self.images.device.type)])
        warm_up = 0.0
        if compiled:
            before, form = guidance, replace(guidance, compiled=True)
            warm_up = self.warmed(form)
            guidance = self.best([guidance, form])
            if guidance == before and form not in self.unfit:
                passes = self.passes(form)
                self.unfit[form] = f"{passes:.2f} of a plain pass, which does not pay for compiling ({warm_up:.0f} s)"
            warm_up = warm_up if guidance.compiled else 0.0
        left = tuple(f"{form}: {why}" for form, why in self.unfit.items())
        return Choice(speed, answers, guidance, self.passes(guidance), self.forward(answers), warm_up, left)

    def disagreement(self, choice: Choice) -> str:
        """Why a choice of an earlier trial is none for this model, whose code may be another; empty where it is one."""
        for form in (choice.answers, choice.guidance):
            if self._tried(form) is None:
                return f"{form}: {self.unfit[form]}"
        return ""

    def formed(self, form: Form) -> Segmenter:
        """The model in a form that agrees with it."""
        return self.tried[form].model

    def exact(self) -> tuple[Form, Form]:
        """The cheapest forms, apart by rounding, for answers and gradients; one for both where little is lost by it."""
        forms = [PLAIN, Form(folded=True), Form(channels_last=True), Form(folded=True, channels_last=True)]
        guidance = self.best(forms)
        if self.images.device.type == "cpu":
            eased = replace(guidance, eased=True)
            last = [replace(eased, channels_last=True)] if replace(guidance, channels_last=True) in self.tried else []
            guidance = self.best([guidance, eased, *last])
        return self.best([guidance, *forms], lambda tried: tried.forward), guidance

    def warmed(self, form: Form) -> float:
        """Seconds until the form has run once with a gradient and once without, if it can be had."""
        started = self.clock()
        if (tried := self._tried(form)) is not None:
            self._answer(tried.model)
            self._settle()
        return self.clock() - started

    def best(self, forms: Sequence[Form], price: Callable[[_Tried], float] = lambda tried: tried.passes) -> Form:
        """The cheapest of the forms that agree; the earlier one unless a later saves enough."""
        tried = [found for form in forms if (found := self._tried(form)) is not None]
        self._time(tried)
        best = tried[0]
        for other in tried[1:]:
            best = other if price(other) < (1 - SAVES) * price(best) else best
        return best.form

    def passes(self, form: Form) -> float:
        """Time of a forward and a backward pass over that of the network."""
        return self.tried[form].passes / self.tried[PLAIN].passes

    def forward(self, form: Form) -> float:
        """Time of a forward pass likewise."""
        return self.tried[form].forward / self.tried[PLAIN].forward

    def _tried(self, form: Form) -> _Tried | None:
        """The form, if it agrees with the network."""
        if form in self.tried or form in self.unfit:
            return self.tried.get(form)
        why = ""
        try:
            model = formed(self.model, form, self.images)
            why = self.difference(model, reduced=form.precision is not None)
        except NotFormedError as error:
            why = str(error)
        except Exception as error:  # a network may refuse a layout, a type or a compiler in any way it likes
            if is_out_of_memory(error):
                release()
            why = in_a_line(error)
        if why:
            self.unfit[form] = why
            return None
        self.tried[form] = _Tried(form, model)
        return self.tried[form]

    def difference(self, model: Segmenter, *, reduced: bool = False) -> str:
        """Why another model does not answer as this one, on the images and on noise; empty where it does.

        Args:
            model: The other one.
            reduced: Whether only its gradient's direction counts; else logits and gradient may differ by rounding.
        """
        for plain, images in zip(self.plain, (self.images, self.noise), strict=True):
            found = self._look(model, images)
            why = _by_direction(plain, found) if reduced else _by_rounding(plain, found)
            if why:
                return why
        return ""

    def _look(self, model: Segmenter, images: Tensor) -> Look:
        images = images.detach().clone().requires_grad_()
        logits = model.logits(images)
        with at_border(f"the backward pass of model {model.name!r}", images.shape):
            # Of a number: a gradient from elsewhere makes torch import SymPy, for half a second.
            (gradient,) = torch.autograd.grad((logits * self.pull).sum(), images)
        return Look(logits.detach(), gradient)

    def _time(self, tried: Sequence[_Tried]) -> None:
        """Once, in interleaved rounds, the network as it is among them; what counts is the least time."""
        if all(each.forward < float("inf") for each in tried):
            return
        all_of_them = list({id(each): each for each in (self.tried[PLAIN], *tried)}.values())
        started = self.clock()
        with self.model.frozen():
            for turn in range(ROUNDS):
                if turn > 1 and self.clock() - started > SECONDS:
                    return
                for each in all_of_them:
                    with each.model.frozen():
                        each.passes = min(each.passes, self._seconds(partial(self._look, each.model, self.images)))
                        each.forward = min(each.forward, self._seconds(partial(self._answer, each.model)))

    @torch.no_grad()
    def _answer(self, model: Segmenter) -> Tensor:
        return model.logits(self.images)

    def _seconds(self, work: Callable[[], object]) -> float:
        self._settle()
        started = self.clock()
        work()
        self._settle()
        return self.clock() - started

    def _settle(self) -> None:
        if self.images.device.type == "cuda":
            torch.cuda.synchronize(self.images.device)


def _by_rounding(plain: Look, other: Look) -> str:
    """Why the difference is more than rounding; empty where it is not."""
    gap = float((other.logits - plain.logits).abs().amax() / plain.logits.abs().amax().clamp_min(1e-30))
    if not gap <= LOGITS:
        return f"its logits differ by {gap:.1g} of the largest; rounding explains {LOGITS:g}"
    turn = float((other.gradient - plain.gradient).norm() / plain.gradient.norm().clamp_min(1e-30))
    if not turn <= GRADIENT:
        return f"its gradient differs by {turn:.1g} of its length; rounding explains {GRADIENT:g}"
    return ""


def _by_direction(plain: Look, other: Look) -> str:
    """Why a gradient of reduced precision does not show the way; empty where it does."""
    if not bool(other.logits.isfinite().all()):
        return "its logits are not finite"
    one, two = plain.gradient.flatten(), other.gradient.flatten()
    cosine = float(torch.dot(one, two) / (one.norm() * two.norm()).clamp_min(1e-30))
    return "" if cosine >= COSINE else f"the cosine of its gradient with the plain one is {cosine:.2f}, below {COSINE}"
