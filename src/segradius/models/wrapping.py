"""`wrap`: any network behind one face, with the classes and bands that are given or that a grey image shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Never

import torch
from torch import Tensor

from segradius.core.bands import told
from segradius.core.border import in_a_line
from segradius.core.errors import InputError, ModelError, is_whole, must
from segradius.core.text import options_of, refuse_unknown
from segradius.models.bands import RGB, candidates, check_number, found_bands, likely_bands, refuse_volumes
from segradius.models.decoding import Decode, Decoding, as_decode, one_channel
from segradius.models.holding import kept
from segradius.models.parameters import check_parameters
from segradius.models.preprocessing import (
    Normalisation,
    NormalisationLike,
    SizeLike,
    as_normalisation,
    as_size_rule,
)
from segradius.models.segmenter import Segmenter

PROBE_SIZE = (128, 128)


def wrap(
    model: Any,
    *,
    num_classes: int | None = None,
    normalisation: NormalisationLike = None,
    size: SizeLike = None,
    outputs: str | Decode | None = None,
    threshold: float | None = None,
    channels: Sequence[int] | int | str | None = None,
    output: int | str | None = None,
    name: str | None = None,
    channels_last: bool | None = None,
    bands: int | None = None,
    lipschitz: float | None = None,
    **_unknown: Never,
) -> Segmenter:
    """A `Segmenter` around a network, which is left as found.

    Args:
        model: An `nn.Module` or any function of a batch (N, B, H, W) that returns logits in a form that `main_output`
            knows. A `Segmenter` passes through, changed only in what is given.
        num_classes: C; found by a forward pass over a grey 128 × 128 image when None.
        normalisation: ``"imagenet"``, ``"none"``, (mean, std), a mapping or a `Normalisation`. None: none.
        size: A `SizeRule` or a mapping of its arguments. None: the network takes any size.
        outputs: ``"logits"`` (the default), ``"probabilities"`` (their logarithm is taken), ``"sigmoids"`` (one a
            class, undone), ``"masked_logits"``; of yes/no channels ``"sigmoid"`` and ``"binary_logit"`` (one), or
            ``"multilabel"`` and ``"multilabel_logits"`` (several), see `Decoding`; or a function from the raw output to
            logits.
        threshold: A yes/no channel says yes where its probability is above it. None: 0.5.
        channels: Which channels of the output count, in that order. None: all.
        output: The entry of a tuple, mapping or object that is meant: an index, a key, an attribute, or several with
            dots between them. None: the only one that can be.
        name: What reports call it; the class or function name when None.
        channels_last: See `Segmenter`. None: off.
        bands: B, its input channels. None: those of its normalisation or of its first convolution, where an image of
            that many is taken; not known where any number may be.
        lipschitz: L that you state of its logits, above 0, see `Segmenter`. None: what a `Segmenter` states itself, as
            long as neither its normalisation nor its sizes nor its outputs are changed.

    Raises:
        InputError: If ``model`` cannot be called, a parameter has no values or not finite ones (`check_parameters`), an
            option is not one of the above, or the number of classes cannot be found or is less than 2;
            if the normalisation is of other bands than the network, or it takes volumes.

    Example:
        >>> model = wrap(torch.nn.Conv2d(3, 7, 1), normalisation="imagenet")
        >>> model.num_classes, model.logits(torch.rand(2, 3, 9, 5)).shape
        (7, torch.Size([2, 7, 9, 5]))
    """
    refuse_unknown("option of wrap", _unknown, options_of(wrap))
    if isinstance(model, Segmenter):
        draft = replace(model, twins=None)  # which have its settings
    elif callable(model):
        draft = Segmenter(model, 0, name=_name_of(model))
    else:
        raise InputError(
            f"a model must be an nn.Module or a function of a batch of images; got a {type(model).__name__}"
        )
    given: dict[str, Any] = {
        "normalisation": as_normalisation(normalisation),
        "size": None if size is None else as_size_rule(size),
        "decode": _decode(draft.decode, outputs, threshold=threshold, channels=channels, output=output),
        "name": name,
        "channels_last": channels_last,
        "num_classes": num_classes,
        "bands": bands,
        "lipschitz": check_lipschitz(lipschitz),
    }
    changed = any(given[key] not in (None, getattr(draft, key)) for key in ("size", "decode"))
    colours = given["normalisation"]
    if changed or (colours != draft.normalisation and colours is not None and not colours.is_identity):
        draft = replace(draft, lipschitz=None)
    draft = replace(draft, **{key: value for key, value in given.items() if value is not None})
    check_parameters(draft.network, draft.name)
    if num_classes is not None:
        draft = _with_classes(draft, num_classes)
    elif given["decode"] is not None or draft.num_classes == 1:
        draft = replace(draft, num_classes=0)
    if not isinstance(model, Segmenter) or bands is not None or normalisation is not None:
        draft = _with_bands(_told(draft))
    if draft.num_classes:
        return draft
    return _with_classes(draft, _counted(draft, _answer_to_grey(draft, draft.bands or RGB)))


def check_lipschitz(value: object) -> float | None:
    """A Lipschitz constant as stated, None for none; raises `InputError` where it is no finite number above 0.

    Example:
        >>> check_lipschitz(1)
        1.0
    """
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    must(number and 0 < value < math.inf, "lipschitz", value, "a finite number above 0")  # type: ignore[operator]
    return float(value)  # type: ignore[arg-type]


def _decode(known: Decode, outputs: str | Decode | None, **given: Any) -> Decode | None:
    """What is known of the outputs, changed in what is given; None where nothing is."""
    given = {name: value for name, value in given.items() if value is not None}
    if outputs is None and not given:
        return None
    if isinstance(known, Decoding) and not callable(outputs):
        kept: dict[str, Any] = {name: getattr(known, name) for name in ("threshold", "channels", "output")}
        kept |= {"outputs": known.kind}
        return as_decode(**(kept | ({} if outputs is None else {"outputs": outputs}) | given))
    return as_decode(known if outputs is None else outputs, **given)


def _told(draft: Segmenter) -> Segmenter:
    """With the bands that the options and the normalisation tell, which must agree."""
    check_number(draft.bands)
    if draft.bands is None:
        refuse_volumes(draft.network, draft.name)
    colours = draft.normalisation
    if colours is None or colours.is_identity:
        return draft
    if draft.bands not in (None, colours.bands):
        raise _other_colours(draft, draft.bands)
    return replace(draft, bands=colours.bands)


def _with_bands(draft: Segmenter) -> Segmenter:
    """With the bands that the network shows, and where an image is needed for that, the classes that it shows too."""
    likely, known = likely_bands(draft.network), draft.bands
    if draft.num_classes and likely in (None, known or RGB):
        return _of_bands(draft, known or likely)
    found, failures = None, []
    for bands in candidates(known, likely):
        try:
            found = _answer_to_grey(draft, bands)
            break
        except InputError as error:
            failures.append(error)
    if found is not None:
        draft = _of_bands(draft, known or found_bands(bands, likely))
        return draft if draft.num_classes else _with_classes(draft, _counted(draft, found))
    told_by_colours = draft.normalisation is not None and not draft.normalisation.is_identity
    if told_by_colours and likely not in (None, known) and _takes(replace(draft, normalisation=None), likely):
        raise _other_colours(draft, likely)
    if draft.num_classes:
        return draft  # the first image tells
    raise failures[0]


def _of_bands(draft: Segmenter, bands: int | None) -> Segmenter:
    """Of so many bands, which a normalisation that changes nothing then has too."""
    colours = draft.normalisation
    if bands is not None and colours is not None and colours.is_identity:
        colours = Normalisation.none(bands)
    return replace(draft, bands=bands, normalisation=colours)


def _with_classes(draft: Segmenter, found: int) -> Segmenter:
    decode = draft.decode
    if isinstance(decode, Decoding):
        decode.check_classes(found, draft.name)
    if not is_whole(found, 2):
        raise InputError(
            f"model {draft.name!r} has num_classes={found!r}; expected a whole number of at least 2. Libraries name it "
            "num_classes, classes or num_labels"
        )
    if not isinstance(decode, Decoding):
        return replace(draft, num_classes=found, structures=0)
    return replace(draft, num_classes=found, decode=decode.for_classes(found), structures=decode.structures(found))


def _answer_to_grey(draft: Segmenter, bands: int) -> Tensor:
    """Logits of one grey image of so many bands."""
    grey = torch.full((1, bands, *(draft.size.exact or PROBE_SIZE)), 0.5, device=draft.device)
    try:
        with torch.no_grad(), draft.frozen(), kept(draft.network):
            logits = draft.raw_logits(grey)
    except ModelError as error:
        if isinstance(error.__cause__, InputError):
            raise
        raise InputError(
            f"cannot find the number of classes of model {draft.name!r} with a grey image {tuple(grey.shape)}: "
            f"{in_a_line(error.__cause__ or error)}. Give num_classes, or the size or the bands that it takes"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 4 or len(logits) != 1:
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        squeezed = isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim == 3
        more = f". {one_channel(logits)}" if squeezed else ""
        expected = "expected logits (1, num_classes, h, w)"
        raise InputError(f"model {draft.name!r} gave {found} for one image; {expected}{more}")
    return logits


def _counted(draft: Segmenter, logits: Tensor) -> int:
    """The classes in an answer to a grey image."""
    if logits.shape[1] == 1:
        raise InputError(f"model {draft.name!r} gives shape {tuple(logits.shape)}: {one_channel(logits)}")
    if logits.shape[1:3] == (draft.size.exact or PROBE_SIZE) != logits.shape[2:]:
        raise InputError(
            f"model {draft.name!r} gives shape {tuple(logits.shape)} for an image of {logits.shape[1]}x"
            f"{logits.shape[2]}, with the classes last; expected (1, num_classes, h, w): give outputs=FUNCTION that "
            "moves them"
        )
    return logits.shape[1]


def _takes(draft: Segmenter, bands: int | None) -> bool:
    """Whether it takes a grey image of so many bands."""
    try:
        return bands is not None and bool(len(_answer_to_grey(replace(draft, bands=bands), bands)))
    except InputError:
        return False


def _other_colours(draft: Segmenter, bands: int | None) -> InputError:
    colours = draft.normalisation
    assert colours is not None
    assert bands is not None
    what = "imagenet, which is" if colours == Normalisation.imagenet() else f"of mean {colours.mean},"
    return InputError(
        f"model {draft.name!r} takes {told(bands)} and its normalisation is {what} for {told(colours.bands)}: give "
        f"normalisation={{mean: […], std: […]}} of {told(bands)}, or none"
    )


def _name_of(model: Any) -> str:
    return model.__name__ if hasattr(model, "__name__") else type(model).__name__
