"""The commands, with their examples, and running one of them: ``segradius attack``, ``certify`` and so on.

Nothing heavy is imported before a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable, Collection, Sequence

from jsonargparse import ArgumentParser

from segradius.cli.agree import agree
from segradius.cli.assess import assess
from segradius.cli.attack import attack
from segradius.cli.certify import certify
from segradius.cli.compare import compare
from segradius.cli.data import data
from segradius.cli.demo import demo
from segradius.cli.evaluate import evaluate
from segradius.cli.export import export
from segradius.cli.gate import gate
from segradius.cli.init import init
from segradius.cli.list import list_names
from segradius.cli.merge import merge
from segradius.cli.models import models
from segradius.cli.paper import paper
from segradius.cli.parser import call, gather, make_parser, reads_bounded
from segradius.cli.report import report
from segradius.cli.run import run
from segradius.cli.train import train
from segradius.cli.transfer import transfer
from segradius.cli.universal import universal
from segradius.cli.verify import verify
from segradius.core.errors import SegradiusError
from segradius.core.escapes import visible
from segradius.core.screen import COMMAND
from segradius.core.secrets import redacted

COMMANDS: dict[str, Callable[..., int]] = {
    "agree": agree,
    "assess": assess,
    "attack": attack,
    "certify": certify,
    "compare": compare,
    "data": data,
    "demo": demo,
    "evaluate": evaluate,
    "export": export,
    "gate": gate,
    "init": init,
    "list": list_names,
    "merge": merge,
    "models": models,
    "paper": paper,
    "report": report,
    "run": run,
    "train": train,
    "transfer": transfer,
    "universal": universal,
    "verify": verify,
}

EXAMPLES = {
    "agree": """examples:
  segradius agree demo demo --other-answers digits=2 --data scenes:48x64 --limit 8 --out agreed
  segradius agree card.yaml onnx:model.onnx --data images:PATH --size 240x320
  segradius agree onnx:model.onnx oip:http://HOST:8000/v2/models/NAME --data images:PATH --limit 20 \\
      --other-budget 20""",
    "assess": """examples:
  segradius assess --model demo --data scenes:48x64 --minutes 1 --out assessed
  segradius assess --model torchvision:deeplabv3_resnet50,num_classes=21 --weights voc.safetensors \\
      --data voc:PATH --protocol paper-voc --minutes 30 --certify
  segradius assess --target onnx:model.onnx --data images:PATH --size 240x320 --labels predicted --budget 5000""",
    "attack": """examples:
  segradius attack --model demo --data scenes --attack pgd,cr_pgd --norm l2 --eps 1.5 --limit 16 --out first
  segradius attack --model torchvision:deeplabv3_resnet50,num_classes=21 --weights voc.safetensors \\
      --data voc:PATH --protocol paper-voc --attack pgd,cr_pgd,segpgd --eps l2=0.5,1.5,linf=4/255
  segradius attack --target onnx:model.onnx --data camvid:PATH --size 240x320 --limit 10 \\
      --attack local_pbgd,cr_pbgd --eps linf=0.05 --queries 1000
  segradius attack --target onnx:model.onnx --from card.yaml,other.yaml --data camvid:PATH --size 240x320 \\
      --attack pgd --eps linf=8/255
  segradius attack --config experiment.yaml --device cuda""",
    "certify": """examples:
  segradius certify --model demo --data scenes:48x64 --sigma 0.1 --n 200 --limit 4 --out certified
  segradius certify --model hardened/best.yaml --data camvid:PATH --size 240x320 --limit 20 --sigma 0.25 \\
      --n 1000 --tau 0.75 --radii one --device cuda --out camvid-certified
  segradius certify --target onnx:model.onnx --data camvid:PATH --size 240x320 --limit 10 --sigma 0.1 \\
      --hierarchy groups.yaml --out served
  segradius certify --model demo --data scenes:48x64 --sigma 0.1 --n 200 --limit 4 --attack cr_pgd,sea --out checked
  segradius certify --model demo --data scenes:48x64 --limit 2 --patch 0.01 --masks 4x4 --out certified-patch
  segradius certify --model lipschitz/last.yaml --data camvid:PATH --size 96x128 --lipschitz verified --attack flips
  segradius certify --config certify.yaml --early-stop 0.01""",
    "compare": """examples:
  segradius compare plain hardened --labels undefended,FastADT --out compared
  segradius compare certified-0.1 certified-0.25 --out certified
  segradius compare released candidate --max-drop 0.02 --junit compare.xml --markdown compare.md""",
    "data": """examples:
  segradius data check scenes:48x64 --limit 8 --out looked
  segradius data check folder:PATH --split test --against-split train
  segradius data check voc:PATH --limit 200 --protocol paper-voc""",
    "demo": "example:\n  segradius demo --out my-demo",
    "evaluate": """examples:
  segradius evaluate --model demo --data scenes --limit 64 --out accuracy
  segradius evaluate --model hardened/best.yaml --data camvid:PATH --size 240x320 --split test""",
    "export": """examples:
  segradius export --model card.yaml --size 240x320 --out model.onnx
  segradius export --results first --out tables --format parquet
  segradius export --adversarial first --out images""",
    "gate": """examples:
  segradius gate measured --policy policy.yaml --junit gate.xml --markdown gate.md
  segradius gate attacked certified --policy policy.yaml --model-card README.md""",
    "init": """examples:
  segradius init cells --model unet.pt
  segradius init cells --model my_code:network --classes background,cell --range 0,4095 --yes
  segradius init roads --model smp:Unet,encoder_name=resnet18,classes=1 --weights unet.safetensors""",
    "list": "example:\n  segradius list attacks",
    "models": "example:\n  segradius models convert train_epoch_50.pth pspnet50_voc.safetensors",
    "paper": """examples:
  segradius paper list
  segradius paper run figure-3 table-3 --out paper
  segradius paper all --scale light --given camvid=PATH --out paper --cost
  segradius paper run figure-3 --scale full --given voc=PATH,weights=PATH --available --device cuda
  segradius paper claims --scale light --out paper""",
    "report": """examples:
  segradius report first --out report.html
  segradius report first certified --out report.html --title 'Our network, before release'""",
    "merge": "example:\n  segradius merge study/shard-1-of-2 study/shard-2-of-2 --out study",
    "run": """examples:
  segradius run examples/study.yaml --out study --dry-run
  segradius run examples/study.yaml --out study
  segradius run study.yaml --out study --shard 3/16
  segradius run study.yaml --out study --only demo-scenes-s0""",
    "transfer": """examples:
  segradius run examples/transfer.yaml --out transfer
  segradius transfer transfer --out matrix
  segradius transfer white-box from-a from-b""",
    "universal": """examples:
  segradius universal --model demo --data scenes:48x64 --split train --eps 8/255 --steps 20 --out one.safetensors
  segradius attack --model demo --data scenes:48x64 --attack universal --eps linf=8/255 \\
      --options delta=one.safetensors""",
    "verify": "examples:\n  segradius verify first\n  segradius verify first --mend",
    "train": """examples:
  segradius train --config configs/camvid/pspnet_light.yaml --data camvid:PATH --out pspnet
  segradius train --config configs/camvid/fast_adt_linf.yaml --data camvid:PATH --weights pspnet/best.safetensors \\
      --out hardened
  segradius attack --model hardened/best.yaml --data camvid:PATH --size 240x320 --attack pgd,cr_pgd --eps linf=0.006""",
}


def build_parser(words: Collection[str] | None = None) -> ArgumentParser:
    """The parser of the whole command line, or of what ``words`` can ask of it: options of a command not named wait."""
    reads_bounded()
    return make_parser(
        COMMANDS, EXAMPLES, configurable=("assess", "attack", "certify", "evaluate", "train"), words=words
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; None takes the process's own.

    Returns:
        The exit status: 0, 2 for input that cannot be used, 3 for images set aside where ``--fail-on-set-aside`` asks
        for that, 6 from ``agree`` where two deployments differ, 130 when interrupted.

    Example:
        >>> main(["attack", "--model", "demo", "--data", "scenes", "--eps", "-1"])
        2
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no run
    words = list(sys.argv[1:] if argv is None else argv)
    asked = COMMAND.set(shlex.join(["segradius", *map(redacted, words)]))
    try:
        return _run(words)
    finally:
        COMMAND.reset(asked)


def _run(words: Sequence[str]) -> int:
    given = build_parser(words).parse_args(gather(words))
    try:
        return call(COMMANDS[given.command], given[given.command])
    except (SegradiusError, OSError) as error:
        print(f"segradius: error: {visible(redacted(str(error)), keep=chr(10))}", file=sys.stderr)
        return 2
    except Exception as error:
        from segradius.core.border import is_out_of_memory, out_of_memory  # brings PyTorch

        if not is_out_of_memory(error):
            raise
        print(f"segradius: error: {visible(out_of_memory(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"segradius: {visible(str(stop)) or 'stopped'}", file=sys.stderr)
        return 130
