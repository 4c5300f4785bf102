"""Folders that smp saved: the network, and the preprocessing that albumentations saved beside it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from segradius.core.errors import InputError
from segradius.models import Normalisation, SizeRule, load_model
from segradius.models.code import files_of
from segradius.models.eval_transform import EVAL, read_transform

smp = pytest.importorskip("segmentation_models_pytorch")
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
#: As albumentations 2.0.8 writes them, values that are the usual ones included.
NORMALIZE = {
    "__class_fullname__": "Normalize",
    "p": 1.0,
    "max_pixel_value": 255.0,
    "normalization": "standard",
    **IMAGENET,
}
RESIZE = {
    "__class_fullname__": "Resize",
    "p": 1.0,
    "area_for_downscale": None,
    "height": 32,
    "interpolation": 1,
    "width": 64,
}
PAD = {
    "__class_fullname__": "PadIfNeeded", "p": 1.0, "border_mode": 0, "fill": 0.0, "fill_mask": 0.0, "min_height": None,
    "min_width": None, "pad_height_divisor": 16, "pad_width_divisor": 16, "position": "center",
}  # fmt: skip
TENSOR = {"__class_fullname__": "ToTensorV2", "p": 1.0, "transpose_mask": False}


def composed(*steps, p=1.0):
    return {"__class_fullname__": "Compose", "p": p, "transforms": list(steps), "bbox_params": None}


def written(folder, *steps, **more):
    folder.mkdir(exist_ok=True)
    (folder / EVAL).write_text(json.dumps({"__version__": "2.0.8", "transform": composed(*steps, **more)}))
    return folder / EVAL


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A network and the folder that it was saved in."""
    torch.manual_seed(0)
    network = smp.Unet("resnet18", encoder_weights=None, classes=3, encoder_depth=3, decoder_channels=(16, 8, 8))
    network(torch.rand(2, 3, 32, 32))  # statistics that are not those of the start
    folder = tmp_path_factory.mktemp("hub") / "net"
    network.save_pretrained(folder)
    return network.eval(), folder


@pytest.fixture
def saved(whole, tmp_path):
    network, folder = whole
    copy = tmp_path / "net"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        os.link(folder / name, copy / name)
    return network, copy


def pixels(count=1, height=32, width=64):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def tensor(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def test_a_folder_with_its_normalisation_is_the_network_by_hand(saved):
    network, folder = saved
    written(folder, RESIZE, NORMALIZE, TENSOR)
    model, images = load_model(f"smp:{folder}"), pixels(2)
    prepared = (images - np.array(IMAGENET["mean"]) * 255) / (np.array(IMAGENET["std"]) * 255)
    with torch.no_grad():
        expected = network(tensor(prepared))
    torch.testing.assert_close(model.logits(tensor(images) / 255), expected, rtol=1e-3, atol=1e-4)
    assert model.size == SizeRule(exact=(32, 64), mode="resize")
    assert (model.weights.source, model.weights.whole, model.assumed) == (f"smp:{folder}", True, "")
    assert files_of(f"smp:{folder}").keys() == {"config.json", EVAL}


def test_without_a_normalisation_the_network_sees_values_to_255(saved):
    network, folder = saved
    written(folder, TENSOR)
    model, images = load_model(f"smp:{folder}"), pixels()
    with torch.no_grad():
        expected = network(tensor(images))
    torch.testing.assert_close(model.logits(tensor(images) / 255), expected, rtol=1e-3, atol=1e-2)
    assert model.size == SizeRule()  # as this network has it, for the file says none


def test_without_the_file_the_normalisation_of_the_encoder_is_assumed_and_told(saved):
    _, folder = saved
    model = load_model(f"smp:{folder}")
    assert model.normalisation == Normalisation.imagenet()
    assert f"has no {EVAL}: the normalisation of its encoder resnet18 is taken" in model.assumed
    assert load_model(f"smp:{folder}", normalisation="none").assumed == ""


def test_a_folder_with_shards_loads(saved):
    network, folder = saved
    (folder / "model.safetensors").unlink()
    torch.save(dict(network.state_dict()), folder / "pytorch_model-00001-of-00001.bin")
    listed = dict.fromkeys(network.state_dict(), "pytorch_model-00001-of-00001.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": listed}))
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close(load_model(f"smp:{folder}", normalisation="none").logits(images), expected)


HALF = Normalisation((0.5,) * 3, (0.25,) * 3)
RAW = Normalisation((0.0,) * 3, (1 / 255,) * 3)
KNOWN = {
    "normalize": ([NORMALIZE], Normalisation.imagenet(), None),
    "normalize, old names": (
        [
            {
                "__class_fullname__": "albumentations.augmentations.transforms.Normalize",
                "always_apply": False,
                **IMAGENET,
            }
        ],
        Normalisation.imagenet(),
        None,
    ),
    "one number for all": ([NORMALIZE | {"mean": 0.5, "std": 0.25}], HALF, None),
    "resize": ([RESIZE, NORMALIZE], Normalisation.imagenet(), SizeRule(exact=(32, 64), mode="resize")),
    "resize alone": ([RESIZE, TENSOR], RAW, SizeRule(exact=(32, 64), mode="resize")),
    "pad": ([PAD, NORMALIZE], Normalisation.imagenet(), SizeRule(multiple_of=16)),
    "resize, and a padding that does nothing": ([RESIZE, PAD], RAW, SizeRule(exact=(32, 64), mode="resize")),
    "to float": ([{"__class_fullname__": "ToFloat", "p": 1.0, "max_value": None}], Normalisation.none(), None),
    "nested": (
        [composed(RESIZE), composed(composed(NORMALIZE))],
        Normalisation.imagenet(),
        SizeRule(exact=(32, 64), mode="resize"),
    ),
    "nothing": ([], RAW, None),
}


@pytest.mark.parametrize("case", KNOWN)
def test_what_is_known_is_read_exactly(tmp_path, case):
    steps, colours, size = KNOWN[case]
    found = read_transform(written(tmp_path / "a", *steps))
    assert (found.normalisation, found.size) == (colours, size)


OTHER = {
    "floats in [0, 1]": (
        [NORMALIZE | {"max_pixel_value": 1.0}],
        {},
        "Normalize with max_pixel_value 1.0: give normalisation",
    ),
    "by image": (
        [NORMALIZE | {"normalization": "image"}],
        {},
        "Normalize with normalization 'image': give normalisation",
    ),
    "twice": ([NORMALIZE, NORMALIZE], {}, "two normalisations: give normalisation"),
    "crop": (
        [{"__class_fullname__": "CenterCrop", "height": 8, "width": 8}],
        {},
        "has CenterCrop, which is not known here",
    ),
    "longest": (
        [{"__class_fullname__": "LongestMaxSize", "max_size": 8}],
        {},
        "has LongestMaxSize, which is not known",
    ),
    "colours": (
        [{"__class_fullname__": "ToGray", "p": 1.0}],
        {},
        "has ToGray, which is not known here: give normalisation and size",
    ),
    "nearest": ([RESIZE | {"interpolation": 0}], {}, "a Resize that is not bilinear: give size"),
    "area": ([RESIZE | {"area_for_downscale": "image"}], {}, "a Resize that is not bilinear"),
    "at least": (
        [PAD | {"min_height": 64, "min_width": 64, "pad_height_divisor": None}],
        {},
        "PadIfNeeded to at least .64, 64",
    ),
    "two divisors": ([PAD | {"pad_width_divisor": 8}], {}, "multiples of .16, 8.: give size"),
    "resize, then pad": ([RESIZE | {"height": 30}, PAD], {}, "several sizes: give size"),
    "two resizes": ([RESIZE, RESIZE | {"height": 64}], {}, "several sizes: give size"),
    "pad, then resize": ([PAD, RESIZE], {}, "several sizes: give size"),
    "by chance": ([NORMALIZE | {"p": 0.5}], {}, "Normalize with probability 0.5"),
    "all by chance": ([NORMALIZE], {"p": 0.5}, "Compose with probability 0.5"),
    "not bytes": ([{"__class_fullname__": "ToFloat", "max_value": 65535}], {}, "ToFloat with max_value 65535"),
    "no mean": ([{"__class_fullname__": "Normalize"}], {}, "is no transform of albumentations: KeyError: 'mean'"),
    "no name": ([{"p": 1.0}], {}, "is no transform of albumentations"),
    "units": ([NORMALIZE | {"mean": [123.7, 116.3, 103.5]}], {}, "are for images in 0–255"),
}


@pytest.mark.parametrize("case", OTHER)
def test_what_is_not_known_is_refused_with_the_option_that_says_it(tmp_path, case):
    steps, more, said = OTHER[case]
    with pytest.raises(InputError, match=said) as caught:
        read_transform(written(tmp_path / "a", *steps, **more))
    assert "\n" not in str(caught.value)


def test_what_the_user_says_is_taken_and_the_file_not_read(saved):
    _, folder = saved
    written(folder, {"__class_fullname__": "CenterCrop", "height": 8, "width": 8})
    with pytest.raises(InputError, match="CenterCrop"):
        load_model(f"smp:{folder}")
    with pytest.raises(InputError, match="CenterCrop"):
        load_model(f"smp:{folder}", normalisation="imagenet")
    model = load_model(f"smp:{folder}", normalisation="imagenet", size={"multiple_of": 32})
    assert (model.normalisation, model.size.multiple_of) == (Normalisation.imagenet(), 32)


def test_padding_elsewhere_than_here_is_told_once(saved, tmp_path, capsys):
    _, folder = saved
    written(folder, NORMALIZE, PAD)
    load_model(f"smp:{folder}")
    assert capsys.readouterr().err.count("pads with the image at 'center'") == 1
    read_transform(written(tmp_path / "a", PAD))
    assert "pads with the image at 'center' and border mode 0" in capsys.readouterr().err
    read_transform(written(tmp_path / "b", PAD | {"position": "top_left", "border_mode": 1}))
    assert capsys.readouterr().err == ""


def test_what_is_no_folder_of_smp_is_told(saved, tmp_path):
    _, folder = saved
    for change, said in {
        "smp:someone/net": r"is no folder here: download it, hf download someone/net --local-dir FOLDER",
        f"smp:{tmp_path}": r"has no config\.json, as save_pretrained writes: give smp:CLASS",
        f"smp:{folder},classes=7": r"does not fit Unet: .*of another shape: segmentation_head",
        f"smp:{folder},clases=7": "unknown argument of smp:.*'clases'; did you mean 'classes'",
        str(folder): "is a folder: of one that transformers has saved write hf:.*, of one of smp smp:",
    }.items():
        with pytest.raises(InputError, match=said):
            load_model(change)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    for text, said in {
        "{": r"config\.json is no valid JSON",
        json.dumps({"model_type": "segformer"}): r"names no class of smp \(_model_class\): of transformers' write hf:",
        json.dumps(content | {"_model_class": "os.system"}): r"unknown smp network 'os\.system'",
        json.dumps(content | {"_model_class": "UnetPlusPlus"}): "does not fit UnetPlusPlus: .*missing",
    }.items():
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError, match=said):
            load_model(f"smp:{folder}")


class Trap:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_pickle_in_the_folder_does_not_run(saved, tmp_path):
    _, folder = saved
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no weights; expected model\.safetensors"):
        load_model(f"smp:{folder}")
    torch.save({"w": Trap(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin' is refused: it holds Python objects"):
        load_model(f"smp:{folder}")
    assert not (tmp_path / "ran").exists()
