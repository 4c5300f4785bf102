"""What a network is made of beside its parameters: the code of a Python object, a card, a configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from segradius.core.digests import file_digest
from segradius.core.modules import module_files
from segradius.core.text import Spec, parse_spec
from segradius.models.cards import is_card, read_card
from segradius.models.denoiser_loading import SOURCE
from segradius.models.denoising import DENOISERS
from segradius.models.sources import MODELS, SOURCES

#: Each by a name that stays when folders are moved: where it is, and a digest of what counts in it.
Files = Mapping[str, tuple[Path, str]]


def files_of(spec: str) -> Files:
    """The files that decide what the network of a model text computes, beside those of its parameters.

    Of ``package.module:OBJECT`` the module, what it imports from the same folder, however deep, and data beside it that
    it names; of a card the card, save what is for people, and the files of its network; of a library's folder its
    configuration. What belongs to segradius or to an installed library is not among them.

    Args:
        spec: As `segradius.models.load_model` takes it.

    Example:
        >>> files_of("demo")
        {}
    """
    if not is_card(spec):
        return _of_network(parse_spec(spec))
    card = read_card(spec)
    told = (card.model, dict(card.arguments), card.normalisation, card.size, card.outputs, card.inference, card.classes)
    more = () if card.denoiser is None or is_card(card.denoiser) else (card.denoiser,)
    own = {Path(spec).name: (Path(spec), text_digest(repr(told + more)))}
    if card.denoiser is not None:
        own |= denoiser_files(card.denoiser)
    parsed = parse_spec(card.model)
    return {**_of_network(Spec(parsed.source, parsed.name, parsed.arguments | dict(card.arguments))), **own}


def denoiser_files(text: str) -> Files:
    """The files that decide what the denoiser of a text computes, as `files_of` has them."""
    card = read_card(text) if is_card(text) else None
    spec = parse_spec(text if card is None else card.model)
    found: dict[str, Path] = {} if card is None else {f"denoiser {Path(text).name}": Path(text)}
    if card is not None and card.weights is not None:
        found[f"denoiser {card.weights.name}"] = card.weights
    own = source_files(DENOISERS[spec.name]) if spec.source in ("", SOURCE) else module_files(spec.source)
    found |= {f"denoiser {name}": file for name, file in own.items()}
    return {name: (file, file_digest(file)) for name, file in found.items()}


def text_digest(text: str) -> str:
    """A short text that changes with another, longer one."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digested(files: Mapping[str, Path]) -> Files:
    """Files with the digests of their content."""
    return {name: (path, file_digest(path)) for name, path in files.items()}


def changed_files(now: Files, before: Mapping[str, str] | None) -> list[str]:
    """What is not as it was, in words.

    Args:
        now: The files.
        before: Their digests by name then; None where nothing was noted.
    """
    if before is None:
        return []
    gone = [f"{name} is no longer part of the model" for name in before if name not in now]
    new = [f"{path} is new in the model" for name, (path, _) in now.items() if name not in before]
    both = [(path, digest, before[name]) for name, (path, digest) in now.items() if name in before]
    return [f"{path} changed" for path, digest, old in both if digest != old] + gone + new


def digests(files: Files) -> dict[str, str]:
    """Digests by name, which `changed_files` compares."""
    return {name: digest for name, (_, digest) in files.items()}


def _of_network(spec: Spec) -> Files:
    if spec.source in SOURCES:
        listed = SOURCES.facts(spec.source).get("files")
        return digested({}) if listed is None else digested(listed(spec.name, spec.arguments))
    if spec.source:
        return digested(module_files(spec.source))
    return digested(source_files(MODELS[spec.name]))


def source_files(made: object) -> dict[str, Path]:
    """As `module_files`, of the module that a function or class is from; nothing of segradius's own.

    Example:
        >>> source_files(files_of)
        {}
    """
    module = getattr(made, "__module__", None) or "segradius"
    return {} if module.partition(".")[0] == "segradius" else module_files(module)
