"""The CamVid network behind real servers: same numbers, exact counts, also when the server is killed in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import real_server
import torch
from real_server import Server

import segradius as sr
from segradius.core.errors import TargetError
from segradius.targets import Traffic, fingerprint, open_target, traffic_of


@pytest.fixture(scope="module", params=sorted(real_server.MAKERS))
def running(
    request: pytest.FixtureRequest, camvid_onnx: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with the CamVid network, started for this file and stopped after it."""
    made = real_server.make(request.param, camvid_onnx, tmp_path_factory.mktemp(request.param))
    made.start()
    try:
        made.wait()
        yield made
    finally:
        made.kill()


@pytest.fixture
def server(running: Server) -> Server:
    """The server with nothing asked yet."""
    running.forget()
    return running


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 96, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("wire", "batch"), [("auto", 1), ("auto", 3), ("json", 8)])
def test_the_served_network_is_the_network(server: Server, camvid_model: sr.Segmenter, wire: str, batch: int):
    x, requests = images(8), -(-8 // batch)
    target = open_target(f"oip:{server.url},wire={wire},batch={batch}")
    assert (target.num_classes, target.name) == (11, "camvid")
    torch.testing.assert_close(target.scores(x), camvid_model.scores(x), rtol=0, atol=1e-5)
    tried = int(wire == "auto" and not server.binary)  # once in binary, in vain
    assert traffic_of(target) == Traffic(answered=8, sent=requests + tried, rejected=tried)
    assert target.target.wire == ("binary" if wire == "auto" and server.binary else "json")
    assert (len(server.asked()), server.asked().total(), target.answered) == (requests, 8, 8)


def test_the_served_network_is_the_file_to_the_bit(server: Server, camvid_onnx: Path):
    file, served = open_target(f"onnx:{camvid_onnx},threads=1"), open_target(f"oip:{server.url}")
    assert torch.equal(served.scores(images(3)), file.scores(images(3)))
    assert fingerprint(served) != fingerprint(file)


def test_a_model_that_is_not_there_is_named(server: Server):
    with pytest.raises(TargetError, match="/v2/models/other answered 404"):
        open_target(f"oip:{server.url.replace('camvid', 'other')}")


def test_a_server_that_is_killed_and_comes_back_is_waited_for(server: Server, camvid_model: sr.Segmenter):
    x = images(8)
    wire = "binary" if server.binary else "json"
    target = open_target(f"oip:{server.url},batch=2,retries=40,backoff=0.01,wire={wire}")
    first = target.scores(x[:4])
    server.kill()
    server.start()
    second = target.scores(x[4:])
    torch.testing.assert_close(torch.cat([first, second]), camvid_model.scores(x), rtol=0, atol=1e-5)
    traffic = traffic_of(target)
    assert traffic.answered == target.answered == 8
    assert traffic.dropped + traffic.rejected == traffic.retried == traffic.sent - 4 > 0
    assert list(server.asked().values()) == [2, 2, 2, 2]
