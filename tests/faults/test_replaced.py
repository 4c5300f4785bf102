"""Other content under the same names between two runs of one command: refused, the file named, no row mixed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cli.served import furnish
from faults.frame import BLACK, MODEL, PREPARED, Case, Tried, begun, fault, prepared, test_fault

__all__ = ["test_fault"]

KIND = "other content under the same names"
CODE = """from small_net import network as plain

def network():
    import lib.scale

    return lib.scale.scaled(plain())
"""
SCALE = "from .much import MUCH\n\ndef scaled(net):\n    return lambda x: MUCH * net(x)\n"
READS = 'import json, pathlib\n\nMUCH = json.loads(pathlib.Path(__file__).with_name("much.json").read_text())\n'
PLAN = "attacks:\n  pgd: {attack: pgd, steps: 2}\n  cr_pgd: {attack: cr_pgd}\n"
CARD = "model: small_net:network\noutputs: logits\n"


def extend(folder: Path, words: Sequence[str]) -> list[str]:
    """A network of several files, a card, a plan, masks and groups beside what the command has."""
    (folder / "lib").mkdir()
    files = {"own.py": CODE, "lib/__init__.py": "", "lib/scale.py": SCALE, "lib/much.py": "MUCH = 1.0\n"}
    files |= {"card.yaml": CARD, "plan.yaml": PLAN, "groups.yaml": "some: [x, y]\nother: [z]\n"}
    for name, text in files.items():
        (folder / name).write_text(text)
    half(folder / "half.png", 0)
    return list(words)


def half(file: Path, first: int) -> None:
    """A mask whose upper half is one class and whose lower half another."""
    pixels = np.full((8, 10), first, dtype=np.uint8)
    pixels[4:] = 1 - first
    Image.fromarray(pixels).save(file)


def external(folder: Path, factor: float) -> None:
    """An ONNX file and its weights in another."""
    from onnx import TensorProto, helper

    weights = factor * np.random.default_rng(0).normal(0, 2, (3, 3, 1, 1)).astype(np.float32)
    (folder / "weights.bin").write_bytes(weights.tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=weights.shape)
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["p"], axis=1)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 8, 10]) for name in "xp"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "net.onnx").write_bytes(model.SerializeToString())


def of(name: str, base: str, *options: str) -> None:
    """Register a folder whose command is another one with other options."""

    def make(folder: Path) -> Sequence[str]:
        words = extend(folder, PREPARED[base](folder))
        return [*words, *options]

    make.__name__ = name
    prepared(make)


of("attack_more", "attack")
of("attack_model", "attack", "--model", "own:network")  # the last of an option given twice counts
of("attack_model_card", "attack", "--model", "card.yaml")
of("attack_aim", "attack", "--aim", "half.png")
of("attack_plan", "attack", "--plan", "plan.yaml")
of("certify_more", "certify")
of("certify_region", "certify", "--region", "half.png")
of("certify_hierarchy", "certify", "--hierarchy", "groups.yaml")
of("evaluate_more", "evaluate")
of("black_more", "black")


@prepared
def external_weights(folder: Path) -> Sequence[str]:
    """A black-box attack on an ONNX file whose weights are in another file."""
    words = extend(folder, [*BLACK, "--target", "onnx:net.onnx,threads=1", *MODEL[4:], "--figures", "0"])
    furnish(folder)
    external(folder, 1.0)
    return words


def noise(file: Path, case: Case) -> None:
    """Other pixels, as many."""
    with Image.open(file) as image:
        shape = np.asarray(image).shape
    high = 256 if len(shape) == 3 else 3
    pixels = np.random.default_rng(case.random.randrange(2**32)).integers(0, high, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def write(name: str, text: str) -> Callable[[Case], str]:
    def harm(case: Case) -> str:
        assert (case.folder / name).read_text() != text
        (case.folder / name).write_text(text)
        return name

    return harm


def other(*names: str) -> Callable[[Case], str]:
    def harm(case: Case) -> str:
        for name in names:
            noise(case.folder / name, case)
        return names[0]

    return harm


def same_times(name: str) -> Callable[[Case], str]:
    """Other content of the same size with the time of the old."""

    def harm(case: Case) -> str:
        file = case.folder / name
        before = file.stat()
        content = bytearray(file.read_bytes())
        content[-20] ^= 1  # in the checksum of the last chunk: no reader minds it
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert file.stat().st_size == before.st_size
        return name

    return harm


def other_half(case: Case) -> str:
    half(case.folder / "half.png", 1)
    return "half.png"


def other_external(case: Case) -> str:
    external(case.folder, -1.0)
    return "weights.bin"


CLASSES, SWAPPED, VOID = (
    "classes: [x, y, z]\n",
    "classes: [x, z, y]\n",
    "classes: [x, y, z]\nignore_index: [255, 254]\n",
)
NET = "from torch import nn\n\ndef network():\n    return nn.Conv2d(3, 3, 1).eval()\n"
IMAGES = [f"data/images/{name}.png" for name in "abc"]
#: By prepared folder: what is done, and which file must be named.
HARMS: dict[str, dict[str, Callable[[Case], str]]] = {
    "attack_more": {
        "images": other(*IMAGES),
        "mask": other("data/masks/b.png"),
        "times_kept": same_times("data/images/a.png"),
        "classes": write("data/segradius.yaml", SWAPPED),
        "void": write("data/segradius.yaml", VOID),
        "code": write("small_net.py", NET),
    },
    "attack_model": {
        "code_below": write("lib/much.py", "MUCH = -1.0\n"),
        "code_between": write("lib/scale.py", SCALE.replace("MUCH * net", "-MUCH * net")),
        "code_beside": write("small_net.py", NET),
    },
    "attack_model_card": {"card": write("card.yaml", CARD.replace("logits", "probabilities"))},
    "attack_aim": {"aim": other_half, "mask_when_aimed": other("data/masks/a.png")},
    "attack_plan": {"plan": write("plan.yaml", PLAN.replace("steps: 2", "steps: 1"))},
    "certify_more": {"images_certified": other("data/images/b.png"), "masks_certified": other("data/masks/a.png")},
    "certify_region": {"region": other_half},
    "certify_hierarchy": {"hierarchy": write("groups.yaml", "some: [x, z]\nother: [y]\n")},
    "evaluate_more": {
        "images_evaluated": other("data/images/a.png"),
        "classes_evaluated": write("data/segradius.yaml", SWAPPED),
        "code_evaluated": write("small_net.py", NET),
    },
    "black_more": {"images_asked": other("data/images/c.png"), "code_asked": write("small_net.py", NET)},
    "external_weights": {"external_weights": other_external},
    "train": {
        "learnt": other("data/images/train/b.png"),
        "learnt_mask": other("data/masks/train/b.png"),
        "held_out": other("data/images/val/c.png"),
        "classes_learnt": write("data/segradius.yaml", SWAPPED),
        "code_learnt": write("small_net.py", NET),
    },
}


def register(name: str, folder: str, harm: Callable[[Case], str]) -> None:
    """The fault after the first run was finished."""

    @fault(KIND, "refused", folder, finished=True, name=f"other_{name}")
    def strike(case: Case) -> Tried:
        before = sorted(case.out.glob("results.sqlite"))
        named = harm(case)
        ran = case.run()
        assert sorted(case.out.glob("results.sqlite")) == before
        return Tried(ran, names=(named, Path(named).stem))


for _folder, _harms in HARMS.items():
    for _name, _harm in _harms.items():
        register(_name, _folder, _harm)


@fault(KIND, "refused", "attack_more")
def other_between(case: Case) -> Tried:
    """Images that were not reached in the first run have other content too: only those that were count."""
    case.run("--limit", "2")
    noise(case.folder / "data" / "images" / "c.png", case)
    assert (case.run("--limit", "2")).status == 0
    noise(case.folder / "data" / "images" / case.random.choice(["a.png", "b.png"]), case)
    return Tried(case.run(), names=("images",))


@fault(KIND, "refused", "black", name="other_journal")
def other_journal(case: Case) -> Tried:
    """An image whose attack was begun and is in the journal, with no result yet."""
    child = begun(case.command)
    end = time.monotonic() + 60
    while not any((case.out / "checkpoints").glob("[!.]*.pt")) and time.monotonic() < end:
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    noise(case.folder / "data" / "images" / "a.png", case)
    return Tried(case.run(), names=("a.png",))


@fault(KIND, "refused", "attack_model", finished=True)
def other_data_of_code(case: Case) -> Tried:
    """A number that the network's code reads from a file beside it."""
    (case.folder / "lib" / "much.py").write_text(READS)
    (case.folder / "lib" / "much.json").write_text("1.0")
    shutil.rmtree(case.out)
    assert case.run("--limit", "1").status == 0
    (case.folder / "lib" / "much.json").write_text("-1.0")
    return Tried(case.run(), names=("much.json",))


def touched(case: Case) -> None:
    for file in case.folder.rglob("data/*/*"):
        file.touch()


def copied(case: Case) -> None:
    shutil.copytree(case.folder / "data", case.folder / "again", copy_function=shutil.copyfile)
    shutil.rmtree(case.folder / "data")
    (case.folder / "again").rename(case.folder / "data")


def commented(case: Case) -> None:
    (case.folder / "data" / "segradius.yaml").write_text("# as before\n" + CLASSES)


def moved(case: Case) -> None:
    case.out.rename(case.folder / "elsewhere")
    (case.folder / "elsewhere").rename(case.out)


for _same in (touched, copied, commented, moved):

    @fault("the same content", "right", "attack", finished=True, name=f"same_{_same.__name__}")
    def _strike(case: Case, same: Callable[[Case], None] = _same) -> Tried:
        same(case)
        return Tried(case.run())


@fault("the same content", "right", "train", finished=True)
def same_learnt(case: Case) -> Tried:
    """Touched and copied under a training."""
    copied(case)
    return Tried(case.run())
