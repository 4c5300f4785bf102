"""A server as a target: what reaches it, what comes back, and what is counted, through failures."""

from __future__ import annotations

import logging
import random
import shutil
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from oip_stub import Stub, linear, serving

from segradius.core.contracts import LABELS_ALONE
from segradius.core.errors import InputError, TargetError
from segradius.targets import Clock, OipTarget, Policy, Traffic, fingerprint, open_target, traffic_of
from segradius.targets.oip_http import Line, Pace

Serve = Callable[..., Stub]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts stubs, and stops them after the test."""
    contexts = []

    def start(**options) -> Stub:
        contexts.append(serving(Stub(**options)))
        return contexts[-1].__enter__()

    yield start
    for context in contexts:
        context.__exit__(None, None, None)


def opened(stub: Stub, options: str = "", **given):
    return open_target(f"oip:{stub.url},backoff=0{options and ','}{options}", **given)


def batch(count: int = 5, size: tuple[int, int] = (6, 7), seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def expected(images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(linear(images.numpy()))


@pytest.mark.parametrize("wire", ["auto", "binary", "json"])
@pytest.mark.parametrize("size", [1, 2, 8])
def test_scores_in_each_wire_and_batch_are_the_models(serve: Serve, wire: str, size: int):
    stub, images = serve(), batch()
    target = opened(stub, f"wire={wire},batch={size}")
    assert torch.equal(target.scores(images), expected(images))
    assert np.array_equal(np.concatenate(stub.inputs), images.numpy())
    assert stub.images == [min(size, 5 - i) for i in range(0, 5, size)]
    assert (target.answered, traffic_of(target)) == (5, Traffic(answered=5, sent=len(stub.images)))


def test_a_server_without_the_binary_extension_is_asked_in_json_after_one_try(serve: Serve):
    stub, images = serve(binary_in=False), batch()
    target = opened(stub, "batch=1")
    assert torch.equal(target.scores(images), expected(images))
    assert stub.received["unread"] == 1
    assert traffic_of(target) == Traffic(answered=5, sent=6, rejected=1)


def test_a_binary_question_may_be_answered_in_json(serve: Serve):
    stub, images = serve(binary_out=False), batch()
    assert torch.equal(opened(stub).scores(images), expected(images))
    assert stub.received["unread"] == 0


def test_what_neither_wire_can_send_gives_the_first_error(serve: Serve):
    stub = serve(fault=lambda n: "500", echo="the model fell over")
    target = opened(stub)
    with pytest.raises(TargetError, match=r"/infer answered 500: the model fell over$"):
        target.scores(batch())
    assert target.answered == 0


@pytest.mark.parametrize("faults", [("503", "429", "502", "drop", "half", "503 after 0", "stall")])
def test_every_query_is_answered_once_through_failures(serve: Serve, faults: tuple[str, ...]):
    """5 % of the requests fail, one of them by a time-out at least; the requests are told apart by their ids."""
    rng = random.Random(3)
    plan = [rng.choice(faults) if rng.random() < 0.05 else None for _ in range(400)]
    plan[7:7] = faults  # each at least once
    stub, images = serve(fault=plan.__getitem__), batch(200)
    target = opened(stub, "batch=2,read=2")
    assert torch.equal(target.scores(images), expected(images))
    traffic = traffic_of(target)
    lost = traffic.timed_out + traffic.rejected + traffic.dropped
    assert target.answered == traffic.answered == 200
    assert traffic.sent == stub.received.total() == 100 + traffic.retried
    assert traffic.retried == lost
    assert len(stub.received) == 100
    assert set(stub.answered.values()) == {1}
    failed = stub.failed
    assert failed["stall"] >= 1
    assert traffic.timed_out == failed["stall"]
    assert traffic.dropped == failed["drop"] + failed["half"]
    assert traffic.rejected == failed["503"] + failed["429"] + failed["502"] + failed["503 after 0"]


def test_ids_repeat_if_and_only_if_the_query_does(serve: Serve):
    stub, images = serve(), batch(3)
    target = opened(stub, "batch=1,prefix=run7-")
    target.scores(images)
    target.scores(images[:1])
    assert sorted(stub.received.values()) == [1, 1, 2]
    assert all(asked.startswith("run7-") for asked in stub.received)


def test_a_server_that_stays_away_is_given_up_with_what_to_do(serve: Serve):
    stub = serve(fault=lambda n: "503", echo="loading")
    target = opened(stub, "retries=3")
    with pytest.raises(TargetError, match=r"answered 503: loading; sent 4 times: is the server up\?"):
        target.scores(batch())
    assert traffic_of(target) == Traffic(sent=4, retried=3, rejected=4)
    assert target.answered == 0
    with pytest.raises(TargetError, match="sent 2 times"):
        open_target("oip:http://127.0.0.1:9/v2/models/net,retries=1,backoff=0")


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "413", "500", "301"])
def test_what_sending_again_cannot_change_is_not_sent_again(serve: Serve, status: str):
    stub = serve(fault=lambda n: status)
    target = opened(stub, "wire=binary")
    with pytest.raises(TargetError, match=f"answered {status}: busy"):
        target.scores(batch())
    assert stub.received.total() == traffic_of(target).sent == 1


def test_a_traceback_is_told_by_its_end(serve: Serve):
    stub = serve(fault=lambda n: "500", echo="Traceback (most recent call last):\n  File ...\nKeyError: 'x'")
    with pytest.raises(TargetError, match=r"answered 500: second line$"):  # what the stub adds to every failure
        opened(stub, "wire=binary").scores(batch())


def test_an_answer_that_is_none_is_told_with_its_beginning(serve: Serve):
    stub = serve(fault=lambda n: "garbage", binary_out=False)
    with pytest.raises(
        TargetError,
        match=r"/v2/models/net: answer 1 of this run is refused: no JSON object is .*; the answer begins with '<html>",
    ):
        opened(stub).scores(batch())


def fake_time() -> tuple[Clock, list[float]]:
    """A clock that stands still but for what is slept, and the list of that."""
    slept: list[float] = []
    return Clock(now=lambda: sum(slept), sleep=slept.append), slept


def test_waits_double_and_retry_after_goes_before_them(serve: Serve):
    plan = ["503", "503", "503", "503", "429 after 7", "503 after soon", "503 after 999999", None]
    stub, (clock, slept) = serve(fault=plan.__getitem__), fake_time()
    target = OipTarget(Line(stub.url, Policy(backoff=0.5), clock), opened(stub).target.exchange, name="net")
    target.scores(batch(1))
    assert slept == [0, 1, 2, 4, 7, 16, 120]


def test_the_rate_limits_every_sending(serve: Serve):
    plan = [None, "503", None, None]
    stub, (clock, slept) = serve(fault=plan.__getitem__), fake_time()
    line = Line(stub.url, Policy(rate=4, backoff=0), clock)
    OipTarget(line, opened(stub).target.exchange, name="net", batch=2).scores(batch(6))
    # Two images every half a second, the one that was sent again included; the zero is its back-off.
    assert slept == [0.5, 0, 0.5, 0.5]


def test_the_pace_is_shared_by_threads():
    slept: list[float] = []
    pace = Pace(10, Clock(now=lambda: 0.0, sleep=slept.append))
    threads = [threading.Thread(target=pace.wait, args=(1,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slept) == pytest.approx([0.1, 0.2, 0.3, 0.4])


SECRET = "s3cr3t-of-the-test"


def test_the_token_goes_into_the_header_and_nowhere_else(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    """The server sends back what it was sent, in each of its failures."""
    monkeypatch.setenv("MY_TOKEN", SECRET)
    caplog.set_level(logging.DEBUG)
    plan: list[str | None] = [None, "503", None, "401", *["503"] * 3, *["garbage"] * 1]
    stub = serve(fault=plan.__getitem__, echo=f"you said Bearer {SECRET}", binary_out=False)
    target = opened(stub, "token_env=MY_TOKEN,retries=2,wire=binary")
    target.scores(batch())
    target.scores(batch())
    said = [repr(target), str(target), repr(target.target.line), repr(vars(target.target)), fingerprint(target)]
    for _ in range(3):
        with pytest.raises(TargetError) as caught:
            target.scores(batch())
        said += ["".join(traceback.format_exception(caught.value)), repr(caught.value)]
    assert "answered 401: you said ***: give token_env" in said[5]
    assert set(stub.tokens[1:]) == {f"Bearer {SECRET}"}
    assert "401" in caplog.text
    assert SECRET not in "".join([*said, caplog.text, *capfd.readouterr()])


def test_certificates_are_verified(serve: Serve, tmp_path: Path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, which makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    stub = serve(certificate=(certificate, key))
    with pytest.raises(TargetError, match="give ca=FILE"):
        opened(stub)
    assert stub.tokens == []
    assert torch.equal(opened(stub, f"ca={certificate}").scores(batch()), expected(batch()))


def test_a_whole_header_is_sent_as_it_is(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_TOKEN", "Basic dTpw")
    stub = serve()
    opened(stub, "token_env=MY_TOKEN")
    assert stub.tokens == ["Basic dTpw"]


def test_a_token_is_refused_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch):
    spec = "oip:http://127.0.0.1:9/v2/models/net,token_env=MY_TOKEN"
    with pytest.raises(InputError, match="MY_TOKEN is not set"):
        open_target(spec)
    monkeypatch.setenv("MY_TOKEN", f"{SECRET}\r\nX-More: 1")
    with pytest.raises(InputError, match="MY_TOKEN holds characters that no header can have") as caught:
        open_target(spec)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("address", ["http://u:hush@h/v2/models/n", "http://h/v2/models/n?key=hush", "http://h/#hush"])
def test_a_secret_in_the_address_is_refused_and_not_repeated(address: str):
    with pytest.raises(InputError, match="token_env") as caught:
        open_target(f"oip:{address}")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("address", ["h:80/v2", "ftp://h/v2", "http:///v2"])
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(InputError, match="no address of a server"):
        open_target(f"oip:{address}")


def test_bytes_are_sent_rounded(serve: Serve):
    stub = serve(
        datatype="UINT8", shape=(-1, -1, -1, 3), model=lambda x: linear(x.transpose(0, 3, 1, 2) / np.float32(255))
    )
    images = batch()
    scores = opened(stub, "num_classes=3").scores(images)
    sent = np.floor(images.numpy() * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    assert np.array_equal(np.concatenate(stub.inputs), sent.transpose(0, 2, 3, 1))
    torch.testing.assert_close(scores, expected(torch.from_numpy(sent) / 255))


def test_half_precision_is_sent_in_binary_only(serve: Serve):
    stub, images = serve(datatype="FP16"), batch()
    assert torch.equal(opened(stub).scores(images), expected(images.half()))
    with pytest.raises(InputError, match="FP16 cannot be sent as JSON"):
        opened(stub, "wire=json").scores(images)


def test_a_fixed_batch_is_filled_up_and_only_real_images_count(serve: Serve):
    stub, images = serve(shape=(4, 3, -1, -1)), batch(6)
    target = opened(stub)
    assert torch.equal(target.scores(images), expected(images))
    assert stub.images == [4, 4]
    assert traffic_of(target).answered == target.answered == 6


def test_labels_of_a_server_that_gives_no_scores(serve: Serve):
    stub, images = serve(model=lambda x: linear(x).argmax(1), output_datatype="INT64"), batch()
    target = opened(stub, outputs="labels", num_classes=3)
    assert target.offers == LABELS_ALONE
    one_hot = torch.nn.functional.one_hot(expected(images).argmax(1), 3).permute(0, 3, 1, 2).float()
    assert torch.equal(target.scores(images), one_hot)


def test_a_server_without_metadata_is_told_names_and_classes(serve: Serve):
    stub, images = serve(metadata={"name": "net", "versions": [], "platform": ""}), batch()
    with pytest.raises(InputError, match=r"0 inputs \(none\): name one with input_name"):
        opened(stub)
    with pytest.raises(InputError, match="give num_classes"):
        opened(stub, "input_name=images")
    target = opened(stub, "input_name=images", num_classes=3)
    assert torch.equal(target.scores(images), expected(images))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"inputs": [{"name": "images"}]}, "malformed inputs"),
        ({"inputs": 3}, "malformed inputs"),
        ([], "answered with list"),
        ({"inputs": [{"name": "a", "datatype": "BYTES", "shape": [-1, 3, 4, 4]}]}, "cannot hold images"),
    ],
)
def test_malformed_metadata_are_refused(serve: Serve, metadata, message: str):
    with pytest.raises((InputError, TargetError), match=message):
        opened(serve(metadata=metadata), num_classes=3)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (lambda x: 5 * x, "", r"values lie in \[.*give outputs=logits"),
        (lambda x: x / 4, "", "sum to one only within"),
        (linear, "outputs=logits", "leave out outputs=logits"),
        (lambda x: x * np.nan, "", "NaN"),
        (lambda x: linear(x)[:, :2], "", r"shape \(5, 2, 6, 7\)"),
        (lambda x: linear(x).argmax(1), "", "give outputs=labels"),
        (linear, "outputs=labels,num_classes=3", "outputs=labels promises"),
        (
            lambda x: linear(x).argmax(1) + 3,
            "outputs=labels,num_classes=3",
            "3 among them; expected 0 to 2",
        ),
        (linear, "output_name=other", "unknown output 'other'"),
    ],
)
def test_answers_that_are_not_what_was_promised_are_refused(serve: Serve, model, options: str, message: str):
    with pytest.raises((InputError, TargetError), match=message):
        opened(serve(model=model), options).scores(batch())


def test_another_version_is_noticed(serve: Serve):
    stub = serve()
    first, again = fingerprint(opened(stub)), fingerprint(opened(stub, "batch=1,rate=3,retries=1"))
    assert first == again
    assert fingerprint(opened(stub, "normalisation=imagenet")) != first
    stub.versions = ("1", "2")
    assert fingerprint(opened(stub)) != first
    assert fingerprint(opened(serve())) != first  # another address


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("raet=3", "did you mean 'rate'"),
        ("wire=xml", "unknown wire 'xml'"),
        ("batch=0", "batch is 0"),
        ("batch=two", "expected a whole number"),
        ("read=-1", "read is -1"),
        ("retries=-1", "retries is -1"),
        ("datatype=float", "unknown datatype 'float'"),
        ("outputs=softmax", "unknown kind of outputs 'softmax'"),
    ],
)
def test_options_are_checked(serve: Serve, option: str, message: str):
    with pytest.raises(InputError, match=message):
        opened(serve(), option)
