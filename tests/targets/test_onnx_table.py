"""Every kind of ONNX file: its answer is right, or it is refused in one line that says what to give; wrong is none."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import torch
from onnx_table import HEADS, File, expected, write

from segradius.core.errors import InputError, TargetError
from segradius.targets import open_target

FORMS = ("nchw", "nhwc", "nhw", "chw", "hwc", "hw")
TOLERANCE = {"float32": 1e-5, "float64": 1e-5, "float16": 2e-2, "bfloat16": 6e-2, "uint8": 1e-2, "int8": 3e-2}


def outcome(path: Path, file: File, options: str, count: int = 3) -> str:
    """Whether a file that is told of with these options is right, refused in a line, or wrong."""
    images = torch.rand(count, file.bands, *file.size, generator=torch.Generator().manual_seed(1))
    try:
        found = open_target(f"onnx:{path},threads=1{options and ','}{options}").scores(images)
    except (InputError, TargetError) as error:
        return "refused" if "\n" not in str(error) else "two lines"
    truth = expected(images, file)
    if found.shape[1] < truth.shape[1]:  # a class too few is seen once it is answered
        found = torch.cat([found, torch.zeros_like(truth[:, found.shape[1] :])], 1)
    if found.shape != truth.shape:
        return "wrong"
    # Where types round, a pixel at the threshold may fall to either side.
    close = (found.double() - truth).abs().amax(1) < TOLERANCE.get(file.given, 1e-5)
    return "right" if close.double().mean() > 0.97 else "wrong"


def told(title: str, found: dict[str, Counter]) -> Counter:
    """The sum, after the table was printed."""
    print(f"\n{title:<18}  right  refused  wrong")
    for name, counts in found.items():
        print(f"{name:<18}  {counts['right']:>5}  {counts['refused']:>7}  {counts['wrong']:>5}")
    return sum(found.values(), Counter())


def files() -> list[File]:
    """Layouts × heads × batches × free or fixed, the types and bands in turn."""
    types = ("float32", "uint8", "float16", "int8", "bfloat16", "float64")
    answers = ("float32", "float16", "bfloat16", "float64")
    made = []
    for number, (layout, form, head, batch, free) in enumerate(
        product(("nchw", "nhwc"), FORMS, HEADS, ("n", 1, 2), (True, False))
    ):
        given = answers[number % 4]
        if head in ("argmax", "mask", "mask of 255"):
            given = ("int64", "uint8", "float32")[number % 3]
        elif number % 5 == 0:
            given = "int8" if HEADS[head][1] == "" else "uint8"
        size = ((18, 20), (24, 24))[number // 7 % 2]
        made.append(File(layout, form, types[number % 6], given, head, batch, free, (3, 3, 1, 4)[number % 4], size))
    return [file for file in made if file.possible]


def test_a_file_that_is_told_of_is_right(tmp_path: Path):
    counts = {head: Counter() for head in HEADS}
    wrong = []
    for file in files():
        found = outcome(write(tmp_path / "net.onnx", file), file, file.options)
        counts[file.head][found] += 1
        wrong += [] if found == "right" else [(found, file)]
    total = told("told", counts)
    assert wrong == []
    assert total["right"] == len(files()) > 400


#: What may be said wrongly of each head, save what no number shows: a sigmoid a class where each is a yes/no map, say.
MISTAKES = {
    "softmax": ("outputs=logits", "outputs=multilabel", "outputs=labels,num_classes=4", "outputs=sigmoid"),
    "logits": ("", "outputs=scores", "outputs=sigmoids", "outputs=multilabel", "outputs=binary_logit"),
    "sigmoid": ("", "outputs=binary_logit", "outputs=logits", "outputs=multilabel_logits", "num_classes=2"),
    "sigmoid at 0.3": ("", "outputs=binary_logit,threshold=0.3", "threshold=0.3"),
    "one of four": ("", "outputs=sigmoid", "outputs=binary_logit,channels=[2]", "outputs=sigmoid,channels=[4]"),
    "binary logit": ("", "outputs=sigmoid", "outputs=multilabel", "outputs=logits", "outputs=scores,num_classes=2"),
    "multilabel": ("", "outputs=multilabel_logits", "outputs=logits,num_classes=8", "outputs=sigmoid"),
    "two of three": ("", "outputs=multilabel,channels=[2,0]", "outputs=binary_logit", "outputs=sigmoids"),
    "argmax": ("", "outputs=labels", "outputs=labels,num_classes=3", "outputs=sigmoid", "num_classes=4"),
    "mask": ("", "outputs=labels", "outputs=binary_logit", "num_classes=2", "outputs=labels,values=[0,255]"),
    "mask of 255": ("", "outputs=labels,num_classes=2", "outputs=sigmoid", "outputs=binary_logit", "num_classes=2"),
}


def test_what_is_said_wrongly_is_refused(tmp_path: Path):
    counts = {head: Counter() for head in HEADS}
    wrong = []
    for number, file in enumerate(files()):
        path = write(tmp_path / "net.onnx", file)
        mistakes = MISTAKES[file.head]
        for options in (mistakes[number % len(mistakes)], "layout=" + ("nhwc" if file.layout == "nchw" else "nchw")):
            found = outcome(path, file, options, 2)
            counts[file.head][found] += 1
            wrong += [(options, file)] if found not in ("right", "refused") else []
    total = told("told wrongly", counts)
    assert wrong == []
    assert total["refused"] > 400
