"""What image processors do to colours, against the processors themselves: every one that transformers segments with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from segradius.core.errors import InputError
from segradius.models import Normalisation, load_model
from segradius.models.hf import _kinds, _usual_colours, colours_of
from segradius.models.preprocessing import measured

transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")

GEOMETRY = ("do_resize", "do_center_crop", "do_pad", "do_split_image")
IMAGE = np.random.default_rng(7).integers(0, 256, (32, 64, 3), dtype=np.uint8)


def classes():
    """Names of the image processors, of all backends, of the kinds of network that segment."""
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    listed = [IMAGE_PROCESSOR_MAPPING_NAMES[kind] for kind in _kinds()]
    return sorted({name for names in listed for name in (names.values() if isinstance(names, dict) else names) if name})


CLASSES = classes()
FLAGS = ("do_rescale", "do_normalize", "do_flip_channel_order", "do_reduce_labels", "do_convert_rgb", *GEOMETRY)


def changes():
    """Changes of a processor's file: an entry and what it becomes, None for absent."""
    yield {}
    for flag in FLAGS:
        yield from ({flag: value} for value in (None, False, True))
    for rescale in (None, False, True):
        for normalise in (None, False, True):
            yield {"do_rescale": rescale, "do_normalize": normalise, "image_mean": [0.4, 0.5, 0.6]}
    for factor in (None, 1 / 127.5, 1.0, 1 / 65535):
        yield {"rescale_factor": factor}
    yield {"image_mean": None, "image_std": None}
    yield {"image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375], "do_rescale": False}
    yield {"image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]}
    yield {"image_std": [0.2, 0.3, -0.1]}
    yield {"image_std": [0.2, 0.0, 0.1]}


def theirs(processor):
    """Its own values, without what changes the size, as far as it knows of that."""
    taken = getattr(getattr(processor, "valid_kwargs", None), "__annotations__", {})
    off = {step: False for step in GEOMETRY if step in taken or hasattr(type(processor), step)}
    return processor(images=[IMAGE], return_tensors="pt", **off)["pixel_values"][0]


def ours(normalisation):
    return normalisation.apply(torch.from_numpy(IMAGE).permute(2, 0, 1)[None] / 255)[0]


def saved(processor, folder, change):
    """The processor as AutoImageProcessor finds it in a file of its own that was changed, or the error."""
    processor.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    content = json.loads(path.read_text())
    content = {key: value for key, value in (content | change).items() if value is not None or key not in change}
    path.write_text(json.dumps(content))
    return transformers.AutoImageProcessor.from_pretrained(folder)


def agrees(processor):
    """Whether values are as the processor's; None where it is refused with what to do."""
    try:
        found = colours_of(processor, "it")
    except InputError as error:
        assert "normalisation" in str(error)  # noqa: PT017  what is refused says what to do
        assert "\n" not in str(error)  # noqa: PT017
        return None
    near = 1e-4 * max(1.0, float(theirs(processor).abs().max()) / 255)  # float32 has no more beyond 255
    return bool((ours(found) - theirs(processor)).abs().max() <= near)


@pytest.mark.parametrize("name", CLASSES)
def test_each_file_of_each_processor_gives_its_own_values_or_is_refused(name, tmp_path, record_property):
    outcomes = [agrees(saved(getattr(transformers, name)(), tmp_path, change)) for change in changes()]
    record_property("outcomes", [outcomes.count(value) for value in (True, None, False)])
    assert outcomes[0] is True  # with its defaults
    assert False not in outcomes
    assert outcomes.count(None) <= 8


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_that_was_saved_again_says_the_same(name, tmp_path):
    once = saved(getattr(transformers, name)(), tmp_path, {})
    twice = saved(once, tmp_path, {})
    assert colours_of(once, "it") == colours_of(twice, "it")
    assert agrees(twice)


@pytest.mark.parametrize("kind", _kinds())
def test_a_network_from_a_configuration_has_the_usual_colours_of_its_kind(kind):
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    first = next(iter(IMAGE_PROCESSOR_MAPPING_NAMES[kind].values()))
    torch.testing.assert_close(
        ours(_usual_colours(transformers, kind)), theirs(getattr(transformers, first)()), rtol=0, atol=1e-4
    )


def test_known_processors():
    usual = {"segformer": Normalisation.imagenet(), "beit": Normalisation((0.5,) * 3, (0.5,) * 3)}
    assert {kind: _usual_colours(transformers, kind) for kind in usual} == usual
    # MobileViT inherits a mean that it does not use, and takes blue first.
    assert _usual_colours(transformers, "mobilevit") == Normalisation((0.0,) * 3, (1.0,) * 3, (2, 1, 0))


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda image: image.float().square(), "more to colours"),
        (lambda image: image.float().mean(0, keepdim=True).expand(3, -1, -1), "more to colours"),
        (lambda image: 1 - image / 255, "more to colours"),
        (lambda image: torch.zeros(3, 32, 32), "more to colours"),
        (lambda image: image[:, ::2] / 255, "makes"),
        (lambda image: image.no_such_thing, "cannot be asked"),
        (lambda image: image.float(), None),
        (lambda image: (image / 255 - 0.2) / 0.3, None),
    ],
)
def test_what_no_normalisation_can_do_is_refused(prepare, said):
    if said is None:
        image = torch.from_numpy(IMAGE[:, :32]).permute(2, 0, 1)
        found = measured(prepare, "it").apply(image[None] / 255)[0]
        torch.testing.assert_close(found, prepare(image), rtol=0, atol=1e-4)
        return
    with pytest.raises(InputError, match=said):
        measured(prepare, "it")


SEGFORMER = "hidden_sizes=[8,8,16,16],depths=[1,1,1,1],num_attention_heads=[1,1,2,2],decoder_hidden_size=16"


@pytest.fixture
def folder(tmp_path):
    """A folder with a small saved network and no processor."""
    load_model(f"hf:segformer,num_labels=3,{SEGFORMER}").network.save_pretrained(tmp_path)
    return tmp_path


def test_a_processor_that_cannot_be_asked_is_refused_unless_the_normalisation_is_said(folder):
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "Siglip2ImageProcessor"}))
    with pytest.raises(InputError, match=r"image processor saved in .*give normalisation="):
        load_model(f"hf:{folder}")
    assert load_model(f"hf:{folder}", normalisation="none").normalisation == Normalisation.none()


def test_a_folder_without_one_has_that_of_its_kind_and_says_so(folder):
    found = load_model(f"hf:{folder}")
    assert found.normalisation == Normalisation.imagenet()
    assert "has no preprocessor_config.json" in found.assumed
    assert not load_model(f"hf:{folder}", normalisation="imagenet").assumed


def test_code_in_a_folder_is_not_run(folder):
    (folder / "theirs.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass P: pass\n")
    (folder / "preprocessor_config.json").write_text(json.dumps({"auto_map": {"AutoImageProcessor": "theirs.P"}}))
    assert load_model(f"hf:{folder}").normalisation == Normalisation.imagenet()  # transformers takes its own as well
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.P"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="cannot load hf:"):
        load_model(f"hf:{folder}")
    assert not (folder / "ran").exists()
