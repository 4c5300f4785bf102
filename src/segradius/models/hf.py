"""Networks of transformers: from a folder, or built from a configuration; offline unless told otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError, missing_extra, unknown_name
from segradius.core.text import refuse_unknown
from segradius.models.preprocessing import Normalisation
from segradius.models.sources import SOURCES, Origin, construct

HUB_KEYS = ("local_files_only", "revision", "cache_dir", "token", "subfolder")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def _configurations(name: str, arguments: Mapping[str, Any]) -> dict[str, Path]:
    """What is beside the weights in a folder; of a hub's network nothing, as its revision names its content."""
    folder = Path(name) / str(arguments.get("subfolder") or "")
    return {file: folder / file for file in ("config.json", *PROCESSOR_FILES) if (folder / file).is_file()}


def _is_kind(name: str) -> bool:
    return not Path(name).is_dir() and "/" not in name


@SOURCES.register(
    "hf",
    example="hf:FOLDER or hf:segformer,num_labels=19",
    extra="hf",
    random=lambda name, arguments: _is_kind(name),
    files=lambda name, arguments: _configurations(name, arguments),
)
def hf(name: str, arguments: Mapping[str, Any]) -> Origin:
    """A semantic or universal segmentation network of transformers, in float32.

    Args:
        name: A folder or hub id with saved weights (read locally unless ``local_files_only=false``), or a kind such as
            ``segformer``, ``upernet``, ``mask2former``: then it is built from its configuration, with random weights.
        arguments: Of the configuration (``num_labels``…).

    Returns:
        The network, with the colours of its saved processor, or ImageNet's. The processor's resizing is not applied:
        give ``size`` for that.

    Raises:
        InputError: On an unknown name or configuration key, files that are not there, or weights that do not fit.
        MissingExtraError: If transformers, or the scipy that Mask2Former needs, is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise missing_extra("transformers", "hf") from error
    try:
        if _is_kind(name):
            return Origin(_from_configuration(transformers, name, arguments), Normalisation.imagenet())
        hub = {"local_files_only": True} | {key: arguments[key] for key in HUB_KEYS if key in arguments}
        changes = {key: value for key, value in arguments.items() if key not in HUB_KEYS}
        return Origin(_from_saved(transformers, name, changes, hub), _saved_normalisation(name, hub))
    except ImportError as error:
        raise missing_extra("scipy" if "scipy" in str(error) else f"another library ({error})", "hf") from error


def _kinds() -> dict[str, bool]:
    """Kinds of network, and whether each gives class and mask queries (else logits)."""
    from transformers.models.auto import modeling_auto as auto

    semantic = dict.fromkeys(auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, False)
    queries = ("maskformer", "mask2former", "eomt", "eomt_dinov3")  # the others need a task or give boxes
    return semantic | {kind: True for kind in queries if kind in auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES}


def _family(transformers: Any, kind: str) -> Any:
    kinds = _kinds()
    if kind not in kinds:
        raise unknown_name("transformers segmentation network or folder", kind, kinds)
    return (
        transformers.AutoModelForUniversalSegmentation if kinds[kind] else transformers.AutoModelForSemanticSegmentation
    )


def _from_configuration(transformers: Any, kind: str, arguments: Mapping[str, Any]) -> Any:
    family = _family(transformers, kind)
    configuration = construct(f"hf:{kind}", transformers.AutoConfig.for_model, {"model_type": kind, **arguments})
    defaults = construct(f"hf:{kind}", transformers.AutoConfig.for_model, {"model_type": kind})
    _check_keys(kind, arguments, defaults)
    return construct(f"hf:{kind}", family.from_config, {"config": configuration}).float()


def _from_saved(transformers: Any, name: str, changes: Mapping[str, Any], hub: Mapping[str, Any]) -> Any:
    try:
        plain = transformers.AutoConfig.from_pretrained(name, **hub)
        family = _family(transformers, plain.model_type)
        _check_keys(plain.model_type, changes, plain)
        config = transformers.AutoConfig.from_pretrained(name, **hub, **changes)
        network, report = family.from_pretrained(name, config=config, output_loading_info=True, **hub)
    except InputError:
        raise
    except RuntimeError as error:
        raise InputError(f"the weights of hf:{name} do not fit its configuration: {error}") from error
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"cannot load hf:{name}: {error}. Without local_files_only=false only a folder or an id in the local cache "
            "is read; nothing is downloaded"
        ) from error
    problems = {kind: list(report[kind]) for kind in ("missing_keys", "mismatched_keys") if report[kind]}
    if problems:
        raise InputError(f"the weights of hf:{name} do not fit its configuration: {problems}")
    return network.float()


def _check_keys(kind: str, arguments: Mapping[str, Any], configuration: Any) -> None:
    # transformers stores any key in a configuration, so a misspelt one would be lost.
    known = {*configuration.to_dict(), *configuration.attribute_map, "num_labels", "id2label", "label2id"}
    refuse_unknown(f"configuration key of {kind}", arguments, known)


def _saved_normalisation(name: str, hub: Mapping[str, Any]) -> Normalisation:
    from transformers.image_processing_base import ImageProcessingMixin

    folder = Path(name)
    if folder.is_dir() and not any((folder / file).exists() for file in PROCESSOR_FILES):
        return Normalisation.imagenet()
    try:
        processor, _ = ImageProcessingMixin.get_image_processor_dict(name, **hub)
    except OSError as error:
        if folder.is_dir():
            raise InputError(f"the image processor saved in {name!r} cannot be read: {error}") from error
        return Normalisation.imagenet()
    return _processor_normalisation(processor)


def _processor_normalisation(processor: Mapping[str, Any]) -> Normalisation:
    """What the processor does to the colours of an 8-bit image, for one in [0, 1]: scale is its unit of that range."""
    scale = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255
    normalise = processor.get("do_normalize", True) and "image_mean" in processor
    mean, std = (processor["image_mean"], processor["image_std"]) if normalise else ([0.0] * 3, [1.0] * 3)
    order = (2, 1, 0) if processor.get("do_flip_channel_order", False) else (0, 1, 2)
    r, g, b = (value / scale for value in mean)
    sr, sg, sb = (value / scale for value in std)
    return Normalisation((r, g, b), (sr, sg, sb), order)
