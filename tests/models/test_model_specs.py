"""The text that names a network."""

from __future__ import annotations

import pytest

from segradius.core.errors import InputError
from segradius.core.text import Spec, parse_spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("demo", Spec("", "demo")),
        ("demo,width=16", Spec("", "demo", {"width": 16})),
        ("torchvision:fcn_resnet50,num_classes=21", Spec("torchvision", "fcn_resnet50", {"num_classes": 21})),
        ("smp:PSPNet,encoder_weights=null,aux=true", Spec("smp", "PSPNet", {"encoder_weights": None, "aux": True})),
        ("hf:org/name, depths = [1, 2]", Spec("hf", "org/name", {"depths": [1, 2]})),
        (
            "hf:upernet,backbone_config={a: [1, 2], b: x}",
            Spec("hf", "upernet", {"backbone_config": {"a": [1, 2], "b": "x"}}),
        ),
        ("package.module:make,note=a:b", Spec("package.module", "make", {"note": "a:b"})),
    ],
)
def test_forms(text, spec):
    assert parse_spec(text) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no network"),
        ("smp:", "names no network"),
        ("smp:PSPNet,classes", "'classes' is not key=value"),
        ("smp:PSPNet,a b=1", "is not key=value"),
        ("smp:PSPNet,classes=2,classes=3", "'classes' twice"),
        ("smp:PSPNet,classes=[2", "is not YAML"),
    ],
)
def test_bad_texts_are_named(text, message):
    with pytest.raises(InputError, match=message):
        parse_spec(text)
