"""What black-box attacks ask: a network here, an ONNX file, a server; counted, budgeted, as harsh as deployed ones."""

from segradius.targets.answers import LabelsOnly, Rounded, TopK
from segradius.targets.exchange import Exchange
from segradius.targets.harsh import Harsh, as_received, parse_answers, parse_inputs
from segradius.targets.identity import fingerprint
from segradius.targets.inputs import Jpeg, Uint8
from segradius.targets.lasting import lasting
from segradius.targets.local import Local
from segradius.targets.metered import Metered
from segradius.targets.oip import OipTarget, open_oip
from segradius.targets.oip_policy import Policy
from segradius.targets.onnx import OnnxTarget, open_onnx
from segradius.targets.opening import open_target, traffic_of
from segradius.targets.spool import Spooled
from segradius.targets.target import TARGETS, Target, layers
from segradius.targets.traffic import Clock, Traffic

__all__ = [
    "TARGETS",
    "Clock",
    "Exchange",
    "Harsh",
    "Jpeg",
    "LabelsOnly",
    "Local",
    "Metered",
    "OipTarget",
    "OnnxTarget",
    "Policy",
    "Rounded",
    "Spooled",
    "Target",
    "TopK",
    "Traffic",
    "Uint8",
    "as_received",
    "fingerprint",
    "lasting",
    "layers",
    "open_oip",
    "open_onnx",
    "open_target",
    "parse_answers",
    "parse_inputs",
    "traffic_of",
]
