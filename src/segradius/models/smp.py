"""Networks of segmentation-models-pytorch, by the name of their class or from a folder that it saved."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segradius.core.border import in_a_line
from segradius.core.errors import InputError, missing_extra, unknown_name
from segradius.core.modules import construct
from segradius.core.safe_json import read_json
from segradius.core.text import refuse_unknown
from segradius.models.bands import RGB
from segradius.models.checkpoints import load_state
from segradius.models.downloads import is_absent
from segradius.models.eval_transform import EVAL, read_transform
from segradius.models.fitting import load_into
from segradius.models.preprocessing import Normalisation, SizeRule, measured
from segradius.models.segmenter import INITIALISED, Weights
from segradius.models.sharded import index_in
from segradius.models.sources import SOURCES, Origin

CONFIG = "config.json"
FILES = ("model.safetensors", "pytorch_model.bin")
#: Encoders with another normalisation than ImageNet's; what it is smp asks its hub for.
OTHER_COLOURS = ("inception", "xception", "dpn")


def configurations(name: str) -> dict[str, Path]:
    """What is beside the weights in a folder that smp saved; nothing of a network by name."""
    return {file: Path(name) / file for file in (CONFIG, EVAL) if (Path(name) / file).is_file()}


@SOURCES.register(
    "smp",
    example="smp:FOLDER or smp:PSPNet,encoder_name=resnet18,classes=11",
    extra="smp",
    files=lambda name, arguments: configurations(name),
)
def smp(name: str, arguments: Mapping[str, Any]) -> Origin:
    """A network of segmentation-models-pytorch, with its encoder's normalisation and padded to its encoder's stride.

    That of an encoder without weights is taken to be ImageNet's; with ``in_channels`` other than 3 there is none.

    Args:
        name: As ``PSPNet``, in any case of letters; or a folder that ``save_pretrained`` wrote, with its weights.
        arguments: Of its class, and of the encoder; ``encoder_weights`` is None unless given.

    Returns:
        The network, its normalisation, and its sizes (PSPNet with ``encoder_depth=3``: multiples of 8).

    Raises:
        InputError: On an unknown name or argument.
        MissingExtraError: If the library is not installed.
    """
    try:
        import segmentation_models_pytorch as library
    except ModuleNotFoundError as error:
        raise missing_extra("segmentation-models-pytorch", "smp") from error
    if Path(name).is_dir() or "/" in name:
        return _saved(library, name, arguments)
    network = _made(library, name, arguments, f"smp:{name}")
    encoder = str(arguments.get("encoder_name", inspect.signature(type(network)).parameters["encoder_name"].default))
    trained = arguments.get("encoder_weights")
    weights = Weights(f"encoder_weights={trained}", whole=False) if trained else INITIALISED
    usual: Normalisation | Callable[[], Normalisation] | None = Normalisation.imagenet()
    assumed = ""
    if arguments.get("in_channels", RGB) != RGB:
        usual = None  # libraries know of no colours but RGB's
    elif trained:
        usual = functools.partial(_colours, library, encoder, trained)
    elif encoder.startswith(OTHER_COLOURS):
        assumed = (
            f"smp normalises for the encoder {encoder} otherwise than by ImageNet's mean and std, which are taken here"
        )
    size = _size(network)
    return Origin(network, usual, size, channels_last=True, weights=weights, assumed=assumed)


def _made(library: Any, name: str, arguments: Mapping[str, Any], label: str) -> Any:
    """A network of a class by name, with the weights of its encoder if ``encoder_weights`` is given, else with none."""
    known = {key.lower(): value for key, value in library.MODEL_ARCHITECTURES_MAPPING.items()}
    if name.lower() not in known:
        raise unknown_name("smp network", name, (value.__name__ for value in known.values()))
    architecture = known[name.lower()]
    # What smp does not know it hands to the encoder; only what looks like a misspelling is refused.
    parameters = [key for key in inspect.signature(architecture).parameters if key != "kwargs"]
    misspelt = [key for key in arguments if difflib.get_close_matches(key, parameters, cutoff=0.75)]
    refuse_unknown(f"argument of {label}", misspelt, parameters)
    return construct(label, architecture, {"encoder_weights": None} | dict(arguments))


def _saved(library: Any, name: str, arguments: Mapping[str, Any]) -> Origin:
    """A network that smp's ``save_pretrained`` wrote, with the preprocessing that albumentations saved beside it.

    Without that file the normalisation of its encoder is assumed, and told.
    """
    folder = Path(name)
    if not folder.is_dir():
        raise InputError(
            f"smp:{name} is no folder here: download it, hf download {name} --local-dir FOLDER, and give that"
        )
    if not (folder / CONFIG).is_file():
        raise InputError(f"smp:{name} has no {CONFIG}, as save_pretrained writes: give smp:CLASS,… and --weights FILE")
    told = read_json(folder / CONFIG)
    if not isinstance(told, Mapping) or not isinstance(told.get("_model_class"), str):
        raise InputError(f"{folder / CONFIG} names no class of smp (_model_class): of transformers' write hf:{name}")
    options = {key: value for key, value in told.items() if not key.startswith("_")} | dict(arguments)
    trained, options["encoder_weights"] = options.get("encoder_weights"), None  # they are in the file
    network = _made(library, told["_model_class"], options, f"smp:{name}")
    file = index_in(folder) or next((folder / file for file in FILES if (folder / file).is_file()), None)
    if file is None:
        raise InputError(f"smp:{name} has no weights; expected {FILES[0]}, or a list of shards")
    load_into(network, load_state(file), file)
    usual = _size(network)
    known: dict[str, Any] = {"channels_last": True, "weights": Weights(f"smp:{name}", whole=True)}
    if (folder / EVAL).is_file():
        transform = functools.cache(lambda: read_transform(folder / EVAL))
        return Origin(network, lambda: transform().normalisation, lambda: transform().size or usual, **known)
    if options.get("in_channels", RGB) != RGB:
        return Origin(network, None, usual, **known)
    encoder = str(options.get("encoder_name"))
    colours = functools.partial(_colours, library, encoder, trained) if trained else Normalisation.imagenet()
    assumed = f"smp:{name} has no {EVAL}: the normalisation of its encoder {encoder} is taken"
    return Origin(network, colours, usual, **known, assumed=assumed)


def _colours(library: Any, encoder: str, trained: Any) -> Normalisation:
    what = f"the preprocessing of smp's encoder {encoder}"
    try:
        prepare = library.encoders.get_preprocessing_fn(encoder, trained)
    except Exception as error:  # its file is missing or damaged, or it knows of none
        if is_absent(error):
            raise
        raise InputError(f"{what} cannot be had ({in_a_line(error)}): give normalisation=") from error
    return measured(lambda image: prepare(image.permute(1, 2, 0).numpy()).transpose(2, 0, 1), what)


def _size(network: Any) -> SizeRule | None:
    if not getattr(network, "requires_divisible_input_shape", True):
        return None
    return SizeRule(multiple_of=int(getattr(network.encoder, "output_stride", 32)))
