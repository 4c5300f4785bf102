"""Networks of transformers: from a folder, or built from a configuration; offline unless told otherwise."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from segradius.core.border import in_a_line
from segradius.core.errors import InputError, missing_extra, unknown_name
from segradius.core.modules import construct
from segradius.core.text import refuse_unknown
from segradius.models.bands import RGB
from segradius.models.checkpoints import load_state
from segradius.models.downloads import is_absent, may_download
from segradius.models.preprocessing import Normalisation, measured
from segradius.models.segmenter import INITIALISED, Weights
from segradius.models.sources import SOURCES, Origin
from segradius.models.weight_files import check_kind

HUB_KEYS = ("local_files_only", "revision", "cache_dir", "token", "subfolder")
#: Steps of a processor that change no colour.
GEOMETRY = ("do_resize", "do_center_crop", "do_pad", "do_split_image")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def _configurations(name: str, arguments: Mapping[str, Any]) -> dict[str, Path]:
    """What is beside the weights in a folder, or in the local cache of a hub's network."""
    files = "config.json", *PROCESSOR_FILES
    if _is_kind(name):
        return {}
    if Path(name).is_dir():
        folder = Path(name) / str(arguments.get("subfolder") or "")
        return {file: folder / file for file in files if (folder / file).is_file()}
    from huggingface_hub import try_to_load_from_cache

    where = {key: arguments.get(key) for key in ("cache_dir", "revision")}
    cached = {file: try_to_load_from_cache(name, file, **where) for file in files}
    return {file: Path(path) for file, path in cached.items() if isinstance(path, str)}


def _is_kind(name: str) -> bool:
    return not Path(name).is_dir() and "/" not in name


@SOURCES.register(
    "hf",
    example="hf:FOLDER or hf:segformer,num_labels=19",
    extra="hf",
    files=lambda name, arguments: _configurations(name, arguments),
)
def hf(name: str, arguments: Mapping[str, Any]) -> Origin:
    """A semantic or universal segmentation network of transformers, in float32.

    Args:
        name: A folder with saved weights, or the id of one in the hub, read from its cache here unless downloads are
            allowed; or a kind such as ``segformer``, ``upernet``, ``mask2former``: then it is built from its
            configuration, with random weights.
        arguments: Of the configuration (``num_labels``…).

    Returns:
        The network, with what its saved processor does to colours, or the usual processor of its kind: transformers
        itself is asked, with an image; nothing where ``num_channels`` is not 3. The processor's resizing and cropping
        are not applied: give ``size`` for that.

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
            network = _from_configuration(transformers, name, arguments)
            if not _is_rgb(network):
                return Origin(network, weights=INITIALISED)
            return Origin(network, lambda: _usual_colours(transformers, name), weights=INITIALISED)
        hub = {"local_files_only": not may_download()} | {key: arguments[key] for key in HUB_KEYS if key in arguments}
        if not hub["local_files_only"] and not may_download():
            raise InputError(
                f"hf:{name}: local_files_only=false is a download: add --allow-download (allow_download=True)"
            )
        changes = {key: value for key, value in arguments.items() if key not in HUB_KEYS}
        network = _from_saved(transformers, name, changes, hub)
        loaded = Weights(f"hf:{name}", whole=True)
        if not _is_rgb(network):
            return Origin(network, weights=loaded)
        if Path(name).is_dir() and not _processor_file(name, hub):
            kind = network.config.model_type
            assumed = f"hf:{name} has no {PROCESSOR_FILES[0]}: the normalisation of the usual {kind} is taken"
            return Origin(network, lambda: _usual_colours(transformers, kind), weights=loaded, assumed=assumed)
        return Origin(network, lambda: _saved_colours(transformers, name, hub), weights=loaded)
    except ImportError as error:
        raise missing_extra("scipy" if "scipy" in str(error) else f"another library ({error})", "hf") from error


def _is_rgb(network: Any) -> bool:
    """Whether it takes RGB, which is all that image processors make."""
    return getattr(network.config, "num_channels", RGB) == RGB


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
    files = _weight_files(Path(name) / str(hub.get("subfolder") or ""))
    for file in files:
        check_kind(file)
    safe = {**hub, "trust_remote_code": False}
    try:
        plain = transformers.AutoConfig.from_pretrained(name, **safe)
        family = _family(transformers, plain.model_type)
        _check_keys(plain.model_type, changes, plain)
        config = transformers.AutoConfig.from_pretrained(name, **safe, **changes)
        network, report = family.from_pretrained(name, config=config, output_loading_info=True, **safe)
    except (InputError, ImportError):
        raise
    except pickle.UnpicklingError as error:
        for file in files:
            load_state(file)  # says what is in the one that is refused
        raise InputError(f"the weights of hf:{name} are refused: {in_a_line(error)}") from error
    except RuntimeError as error:
        raise InputError(f"the weights of hf:{name} do not fit its configuration: {in_a_line(error)}") from error
    except Exception as error:  # whatever a damaged or missing file makes of the library
        if is_absent(error):
            raise
        raise InputError(f"cannot load hf:{name}: {in_a_line(error)}") from error
    problems = {kind: list(report[kind]) for kind in ("missing_keys", "mismatched_keys") if report[kind]}
    if problems:
        raise InputError(f"the weights of hf:{name} do not fit its configuration: {problems}")
    return network.float()


def _weight_files(folder: Path) -> list[Path]:
    """What transformers reads of a folder, which is no pickle where it has a choice."""
    return list(folder.glob("model*.safetensors")) or list(folder.glob("pytorch_model*.bin"))


def _check_keys(kind: str, arguments: Mapping[str, Any], configuration: Any) -> None:
    # transformers stores any key in a configuration, so a misspelt one would be lost.
    known = {*configuration.to_dict(), *configuration.attribute_map, "num_labels", "id2label", "label2id"}
    refuse_unknown(f"configuration key of {kind}", arguments, known)


def _processor_file(name: str, hub: Mapping[str, Any]) -> Path | None:
    folder = Path(name) / str(hub.get("subfolder") or "")
    return next((folder / file for file in PROCESSOR_FILES if (folder / file).exists()), None)


def _saved_colours(transformers: Any, name: str, hub: Mapping[str, Any]) -> Normalisation:
    what = f"the image processor saved in {name!r}"
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False, **hub)
    except Exception as error:  # whatever a damaged or missing file makes of the library
        if is_absent(error):
            raise
        told = f"{what} cannot be read ({in_a_line(error)})"
        raise InputError(f"{told}: give normalisation= (mean and std for images in [0, 1])") from error
    return colours_of(processor, what)


def _usual_colours(transformers: Any, kind: str) -> Normalisation:
    """Those of the image processor that transformers has for a kind of network, with its defaults."""
    from transformers.models.auto import image_processing_auto as auto

    listed = auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(kind, ())  # type: ignore[attr-defined]  # public in its pages
    names = [listed] if isinstance(listed, str) else list(listed.values() if isinstance(listed, Mapping) else listed)
    for name in filter(None, names):
        try:
            processor = getattr(transformers, name)()
        except ImportError:  # it needs a library that is not here; the next of the kind does not
            continue
        return colours_of(processor, f"the usual image processor of {kind}")
    raise InputError(f"transformers has no image processor for {kind}: give normalisation= (mean and std)")


def colours_of(processor: Any, what: str) -> Normalisation:
    """What an image processor of transformers does to colours, as it does it; its geometry is left out.

    Args:
        processor: An instance.
        what: Whose it is, for messages.

    Raises:
        InputError: It does more than to reorder, scale and shift channels, or changes the size all the same.
    """
    kind = type(processor)
    known = {*inspect.signature(kind.preprocess).parameters}
    known |= {*getattr(getattr(kind, "valid_kwargs", None), "__annotations__", ())}  # since transformers 4.51
    off = {step: False for step in GEOMETRY if step in known}

    def prepare(image: Tensor) -> Any:
        return processor(images=[image.permute(1, 2, 0).numpy()], return_tensors="pt", **off)["pixel_values"][0]

    return measured(prepare, what)
