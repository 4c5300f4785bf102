"""Server processes that nobody here wrote, MLServer and KServe, each in a Python environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3

SHAPES = {"images": [-1, 3, 96, 128], "probabilities": [-1, 11, 96, 128]}
INPUTS, OUTPUTS = ([{"name": name, "datatype": "FP32", "shape": SHAPES[name]}] for name in SHAPES)
SECONDS_TO_START = 90

# These run in the servers' environments, so they are no modules of this one.
COMMON = """
import sys
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1


def run(session, request, images):
    with open("asked.txt", "a") as log:
        print(request, len(images), file=log)
    return session.run(None, {"images": images})[0]
"""
MLSERVER = """
from common import onnxruntime, options, run
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Onnx(MLModel):
    async def load(self):
        self.session = onnxruntime.InferenceSession("camvid.onnx", options)
        return True

    async def predict(self, payload):
        answer = run(self.session, payload.id, NumpyCodec.decode_input(payload.inputs[0]))
        output = NumpyCodec.encode_output("probabilities", answer)
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=[output])
"""
KSERVE = f"""
from common import onnxruntime, options, run, sys
import uvicorn
from kserve import InferOutput, InferResponse, Model, ModelServer


class Onnx(Model):
    def load(self):
        self.session = onnxruntime.InferenceSession("camvid.onnx", options)
        self.ready = True

    async def get_input_types(self):
        return {INPUTS!r}

    async def get_output_types(self):
        return {OUTPUTS!r}

    async def predict(self, payload, headers=None, response_headers=None):
        answer = run(self.session, payload.id, payload.inputs[0].as_numpy())
        output = InferOutput("probabilities", list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=True)
        return InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=[output])


# KServe listens to the whole network; a test listens to its own machine.
whole = uvicorn.Config
uvicorn.Config = lambda *given, **named: whole(*given, **(named | {{"host": "127.0.0.1"}}))
model = Onnx("camvid")
model.load()
ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1).start([model])
"""


@dataclass
class Server:
    """A server process in a folder of its own, with the model ``camvid``.

    ``binary`` says whether it speaks the binary tensor extension.
    """

    folder: Path
    command: Sequence[str | Path]
    port: int
    binary: bool
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2/models/camvid"

    def start(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, self.command)),
                cwd=self.folder,
                env=environment | {"PYTHONPATH": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        end = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if urllib3.request("GET", f"{self.url}/ready", retries=False, timeout=5).status == 200:
                    return
            except urllib3.exceptions.HTTPError:
                pass
            time.sleep(0.2)
        pytest.fail(f"{self.command} did not start:\n{(self.folder / 'log.txt').read_text()[-3000:]}")

    def kill(self) -> None:
        """SIGKILL, which no process can answer."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def forget(self) -> None:
        (self.folder / "asked.txt").write_text("")

    def asked(self) -> Counter:
        """Images that reached the model, by request id; added up where an id came again."""
        counts: Counter = Counter()
        for line in (self.folder / "asked.txt").read_text().splitlines():
            name, images = line.split()
            counts[name] += int(images)
        return counts


def mlserver(environment: Path, folder: Path) -> Server:
    port, grpc, metrics = free_ports(3)
    ports = {"http_port": port, "grpc_port": grpc, "metrics_port": metrics}
    model = {"name": "camvid", "implementation": "runtime.Onnx", "parameters": {"version": "v1"}}
    write(folder / "settings.json", {"host": "127.0.0.1", "parallel_workers": 0} | ports)
    write(folder / "model-settings.json", model | {"inputs": INPUTS, "outputs": OUTPUTS})
    (folder / "runtime.py").write_text(MLSERVER)
    return Server(folder, [environment / "bin" / "mlserver", "start", folder], port, binary=False)


def kserve(environment: Path, folder: Path) -> Server:
    (port,) = free_ports(1)
    (folder / "runtime.py").write_text(KSERVE)
    return Server(folder, [environment / "bin" / "python", "runtime.py", str(port)], port, binary=True)


MAKERS = {"mlserver": mlserver, "kserve": kserve}


def make(name: str, network: Path, folder: Path) -> Server:
    """A server, not started, for a network in an ONNX file; skips the test where its environment is absent."""
    environments = os.environ.get("SEGRADIUS_SERVERS")
    if environments is None:
        pytest.skip(f"{name} absent: set SEGRADIUS_SERVERS to the folder of its environment, see CONTRIBUTING.md")
    environment = Path(environments) / name
    if not list(environment.glob(f"lib/python*/site-packages/{name}")):
        pytest.skip(f"{environment} has no {name}: it may not be there for this Python")
    shutil.copy(network, folder / "camvid.onnx")
    (folder / "common.py").write_text(COMMON)
    return MAKERS[name](environment, folder)


def write(path: Path, content: Mapping) -> None:
    path.write_text(json.dumps(content))


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
