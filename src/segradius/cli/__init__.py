"""The command line: ``segradius attack``, ``certify``, ``compare``, ``evaluate``, ``train`` and so on; see `COMMANDS`.

Nothing heavy is imported before a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentParser

from segradius.cli.attack import attack
from segradius.cli.certify import certify
from segradius.cli.compare import compare
from segradius.cli.demo import demo
from segradius.cli.evaluate import evaluate
from segradius.cli.list import list_names
from segradius.cli.models import export, models
from segradius.cli.parser import call, gather, make_parser
from segradius.cli.train import train
from segradius.core.errors import SegradiusError

COMMANDS: dict[str, Callable[..., int]] = {
    "attack": attack,
    "certify": certify,
    "compare": compare,
    "demo": demo,
    "evaluate": evaluate,
    "export": export,
    "list": list_names,
    "models": models,
    "train": train,
}

EXAMPLES = {
    "attack": """examples:
  segradius attack --model demo --data scenes --attack pgd,cr_pgd --norm l2 --eps 1.5 --limit 16 --out first
  segradius attack --model torchvision:deeplabv3_resnet50,num_classes=21 --weights voc.safetensors \\
      --data voc:PATH --protocol paper-voc --attack pgd,cr_pgd,segpgd --eps l2=0.5,1.5,linf=4/255
  segradius attack --target onnx:model.onnx --data camvid:PATH --size 240x320 --limit 10 \\
      --attack local_pbgd,cr_pbgd --eps linf=0.05 --queries 1000
  segradius attack --config experiment.yaml --device cuda""",
    "certify": """examples:
  segradius certify --model demo --data scenes:48x64 --sigma 0.1 --n 200 --limit 4 --out certified
  segradius certify --model hardened/best.yaml --data camvid:PATH --size 240x320 --limit 20 --sigma 0.25 \\
      --n 1000 --tau 0.75 --radii one --device cuda --out camvid-certified
  segradius certify --target onnx:model.onnx --data camvid:PATH --size 240x320 --limit 10 --sigma 0.1 \\
      --hierarchy groups.yaml --out served
  segradius certify --model demo --data scenes:48x64 --sigma 0.1 --n 200 --limit 4 --attack cr_pgd,sea --out checked
  segradius certify --config certify.yaml --early-stop 0.01""",
    "compare": """examples:
  segradius compare plain hardened --labels undefended,FastADT --out compared
  segradius compare certified-0.1 certified-0.25 --out certified""",
    "demo": "example:\n  segradius demo --out my-demo",
    "evaluate": """examples:
  segradius evaluate --model demo --data scenes --limit 64 --out accuracy
  segradius evaluate --model hardened/best.yaml --data camvid:PATH --size 240x320 --split test""",
    "export": "example:\n  segradius export --model card.yaml --size 240x320 --out model.onnx",
    "list": "example:\n  segradius list attacks",
    "models": "example:\n  segradius models convert train_epoch_50.pth pspnet50_voc.safetensors",
    "train": """examples:
  segradius train --config configs/camvid/pspnet_light.yaml --data camvid:PATH --out pspnet
  segradius train --config configs/camvid/fast_adt_linf.yaml --data camvid:PATH --weights pspnet/best.safetensors \\
      --out hardened
  segradius attack --model hardened/best.yaml --data camvid:PATH --size 240x320 --attack pgd,cr_pgd --eps linf=0.006""",
}


def build_parser() -> ArgumentParser:
    """The parser of the whole command line."""
    return make_parser(COMMANDS, EXAMPLES, configurable=("attack", "certify", "evaluate", "train"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; None takes the process's own.

    Returns:
        The exit status: 0, 2 for input that cannot be used, 130 when interrupted.

    Example:
        >>> main(["attack", "--model", "demo", "--data", "scenes", "--eps", "-1"])
        2
    """
    given = build_parser().parse_args(gather(sys.argv[1:] if argv is None else argv))
    try:
        return call(COMMANDS[given.command], given[given.command])
    except (SegradiusError, OSError, MemoryError) as error:
        print(f"segradius: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"segradius: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130


__all__ = ["build_parser", "main"]
