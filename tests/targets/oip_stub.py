"""An Open Inference Protocol server for tests, written without segradius, that fails as real ones do and counts."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

KINDS = {"FP32": "<f4", "FP16": "<f2", "UINT8": "u1", "INT8": "i1", "INT64": "<i8", "FP64": "<f8"}
LENGTH = "Inference-Header-Content-Length"


def linear(images: np.ndarray) -> np.ndarray:
    """Softmax of three classes of (N, 3, H, W): the channels times 4."""
    z = np.exp(4 * images.astype(np.float64))
    return (z / z.sum(1, keepdims=True)).astype(np.float32)


@dataclass
class Stub:
    """What it serves, how it fails, and what reached it.

    ``fault(n)`` names the failure of the n-th infer request, from 0, or is None. ``change(n, reply, answer)`` gives
    another JSON object and array in place of these, and ``wire(n, head, body)`` pieces of bytes that are all that is
    sent, or None. ``others`` are inputs beside the images, with what they were given last.
    """

    model: Callable[[np.ndarray], np.ndarray] = linear
    fault: Callable[[int], str | None] = lambda n: None
    change: Callable[[int, dict, np.ndarray], tuple[dict, np.ndarray]] = lambda n, reply, answer: (reply, answer)
    wire: Callable[[int, bytes, bytes], Iterator[bytes] | None] = lambda n, head, body: None
    datatype: str = "FP32"
    shape: tuple[int, ...] = (-1, 3, -1, -1)
    output_shape: tuple[int, ...] = (-1, 3, -1, -1)
    output_datatype: str = "FP32"
    binary_in: bool = True
    binary_out: bool = True
    metadata: dict | None = None
    versions: tuple[str, ...] = ("1",)
    echo: str = ""
    others: dict = field(default_factory=dict)
    received: Counter = field(default_factory=Counter)
    answered: Counter = field(default_factory=Counter)
    images: list[int] = field(default_factory=list)
    inputs: list[np.ndarray] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    failed: Counter = field(default_factory=Counter)
    url: str = ""
    certificate: tuple[Path, Path] | None = None
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def described(self) -> dict:
        if self.metadata is not None:
            return self.metadata
        return {
            "name": "net",
            "versions": list(self.versions),
            "platform": "stub",
            "inputs": [
                {"name": "images", "datatype": self.datatype, "shape": list(self.shape)},
                *({"name": name, "datatype": "FP32", "shape": [1]} for name in self.others),
            ],
            "outputs": [{"name": "probabilities", "datatype": self.output_datatype, "shape": list(self.output_shape)}],
        }


class RefusedError(Exception):
    pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stub: Stub

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.stub.tokens.append(self.headers.get("Authorization"))
        if self.path == "/v2/models/net":
            self.reply(200, json.dumps(self.stub.described()).encode())
        else:
            self.reply(404, b'{"error": "no such model"}')

    def do_POST(self):
        stub = self.stub
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with stub.lock:
            stub.tokens.append(self.headers.get("Authorization"))
            number = stub.received.total()
            try:
                message, images = self.parse(body)
            except RefusedError as error:
                stub.received["unread"] += 1
                self.reply(400, json.dumps({"error": str(error)}).encode())
                return
            stub.received[message["id"]] += 1
            stub.inputs.append(images)
            fault = stub.fault(number)
            stub.failed[fault] += 1
        if fault is None or fault in ("half", "garbage"):
            self.respond(message, images, fault, number)
        else:
            self.fail(fault)

    def parse(self, body: bytes) -> tuple[dict, np.ndarray]:
        length = self.headers.get(LENGTH)
        if length is not None and not self.stub.binary_in:
            raise RefusedError("no binary here")
        message = json.loads(body[: int(length)] if length else body)
        given, *others = message["inputs"]
        assert [each["name"] for each in others] == list(self.stub.others)
        if length:
            raw, first = body[int(length) :], given["parameters"]["binary_data_size"]
            assert len(raw) == first + sum(each["parameters"]["binary_data_size"] for each in others)
            array = np.frombuffer(raw[:first], KINDS[given["datatype"]])
            raw = raw[first:]
            for each in others:
                self.stub.others[each["name"]], raw = np.frombuffer(raw, KINDS[each["datatype"]]).tolist(), b""
        else:
            array = np.array(given["data"], KINDS[given["datatype"]])
            self.stub.others.update({each["name"]: each["data"] for each in others})
        assert given["name"] == "images"
        return message, array.reshape(given["shape"])

    def fail(self, fault: str) -> None:
        if fault == "stall":
            self.stub.released.wait(60)
            self.close_connection = True
        elif fault == "drop":
            self.close_connection = True
        else:
            status, _, after = fault.partition(" after ")
            self.reply(
                int(status),
                f"{self.stub.echo or 'busy'}\nsecond line".encode(),
                {"Retry-After": after} if after else {},
            )

    def respond(self, message: dict, images: np.ndarray, fault: str | None, number: int) -> None:
        said, answer = self.stub.change(number, {"id": message["id"], "model_name": "net"}, self.stub.model(images))
        kind = next(name for name, kind in KINDS.items() if np.dtype(kind) == answer.dtype)
        output = {"name": "probabilities", "datatype": kind, "shape": list(answer.shape)}
        asked = message.get("outputs") or [{"parameters": message.get("parameters", {}) and {"binary_data": True}}]
        extra = {}
        if self.stub.binary_out and asked[0].get("parameters", {}).get("binary_data"):
            raw = answer.astype(KINDS[kind]).tobytes()
            output["parameters"] = {"binary_data_size": len(raw)}
            head = json.dumps({"outputs": [output], **said}).encode()
            body, extra = head + raw, {LENGTH: str(len(head))}
        else:
            output["data"] = answer.ravel().tolist()
            body = json.dumps({"outputs": [output], **said}).encode()
        if fault == "garbage":
            body = b"<html>" + self.stub.echo.encode() + body[:50]
        pieces = self.stub.wire(number, f"{LENGTH}: {extra.get(LENGTH, len(body))}".encode(), body)
        if pieces is not None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                for piece in pieces:
                    self.wfile.write(piece)
            return
        if fault is None:
            with self.stub.lock:
                self.stub.answered[message["id"]] += 1
                self.stub.images.append(len(images))
        self.reply(200, body, extra, cut=fault == "half")

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


@contextmanager
def serving(stub: Stub) -> Iterator[Stub]:
    """The stub behind a free port, until the end of the context."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"stub": stub}))
    server.daemon_threads = True
    server.handle_error = lambda *given: None  # a client that hangs up, or refuses the certificate
    if stub.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*stub.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stub.url = f"http{'s' if stub.certificate else ''}://127.0.0.1:{server.server_port}/v2/models/net"
    try:
        yield stub
    finally:
        stub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
