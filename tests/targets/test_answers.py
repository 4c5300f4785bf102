"""Every answer of a server is checked, the first and a later one, for form, values, origin, length and time."""

from __future__ import annotations

import gzip
import itertools
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oip_stub import Stub, linear, serving

from segradius.core.errors import AnswerError, InputError, TargetError
from segradius.targets import Metered, Spooled, Traffic, open_target, traffic_of
from segradius.targets.answers import Firsts, Raw, check_repeated, check_scores, check_values

#: What may be changed in a response, and what the refusal says. None: what cannot be told from an answer alone.
CHANGED = {
    "values above one": (lambda r, y: (r, y * 3), r"lie in \[.*\]; expected \[0, 1\]"),
    "values below zero": (lambda r, y: (r, -y), r"lie in \[-"),
    "logits": (lambda r, y: (r, np.log(y + 1e-9)), r"lie in \[-.*outputs=logits"),
    "zeros": (lambda r, y: (r, y * 0), "every class has the value 0 at every pixel"),
    "zeros of the second image": (lambda r, y: (r, np.stack([y[0], y[1] * 0])), "image 2 of 2: every class"),
    "the same for every class": (lambda r, y: (r, np.full_like(y, 1 / 3)), "every class has the value 0.3333"),
    "a sum that is not one": (lambda r, y: (r, y * 0.8), "sum to one only within 0.2"),
    "NaN in one pixel": (lambda r, y: (r, np.where(np.arange(y.size).reshape(y.shape) == 7, np.nan, y)), "NaN"),
    "infinity": (lambda r, y: (r, np.where(np.arange(y.size).reshape(y.shape) == 7, np.inf, y)), "infinite"),
    "a map of one pixel": (lambda r, y: (r, y[:, :, :1, :1]), "1x1 values a class"),
    "double precision": (lambda r, y: (r, y.astype(np.float64)), "in float64; expected float32"),
    "half precision": (lambda r, y: (r, y.astype(np.float16)), "in float16; expected float32"),
    "whole numbers": (lambda r, y: (r, (y * 255).astype(np.int64)), r"in torch.int64; expected floating"),
    "an image too few": (lambda r, y: (r, y[:1]), r"shape \(1, 3, 6, 7\) to 2 images"),
    "an image too many": (lambda r, y: (r, np.concatenate([y, y[:1]])), r"shape \(3, 3, 6, 7\) to 2 images"),
    "a class too few": (lambda r, y: (r, y[:, :2]), r"shape \(2, 2, 6, 7\)"),
    "three dimensions": (lambda r, y: (r, y[:, 0]), r"shape \(2, 6, 7\)"),
    "no pixels": (lambda r, y: (r, y[:, :, :0]), r"shape \(2, 3, 0, 7\)"),
    "another question's": (lambda r, y: (r | {"id": "another"}, y), "answers the question 'another'"),
    "another model's": (lambda r, y: (r | {"model_name": "other"}, y), "of the model 'other'; expected 'net'"),
    "another version's": (lambda r, y: (r | {"model_version": "9"}, y), "version '9'; expected 1"),
    "escape codes": (lambda r, y: (r | {"model_name": "\x1b[31m\n"}, y), r"of the model '\\x1b\[31m\\n'"),
    "no outputs": (lambda r, y: (r | {"outputs": []}, y), "has no outputs"),
}
LATER = {
    "half the size": (lambda r, y: (r, y[:, :, ::2, ::2]), "3x4 values a class; expected 6x7"),
    "no id": (lambda r, y: ({"model_name": "net"}, y), "its id is not told"),
    "no model's name": (lambda r, y: ({"id": r["id"]}, y), "its model_name is not told"),
}


@pytest.fixture
def serve() -> Iterator[Callable[..., Stub]]:
    """Starts stubs, and stops them after the test."""
    contexts = []

    def start(**options) -> Stub:
        contexts.append(serving(Stub(**options)))
        return contexts[-1].__enter__()

    yield start
    for context in contexts:
        context.__exit__(None, None, None)


def opened(stub: Stub, options: str = "", **given) -> Metered:
    return open_target(f"oip:{stub.url},backoff=0,batch=2{options and ','}{options}", **given)


def batch(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 6, 7, generator=torch.Generator().manual_seed(seed))


def asked_until_refused(stub: Stub, options: str = "", count: int = 4) -> tuple[Metered, str]:
    """The target and what was said, after questions each of which was answered rightly or refused."""
    target = opened(stub, options)
    for seed in range(count):
        try:
            scores = target.scores(batch(seed=seed))
        except TargetError as error:
            return target, str(error)
        assert torch.equal(scores, torch.from_numpy(linear(batch(seed=seed).numpy())))
    return target, ""


@pytest.mark.parametrize("wire", ["binary", "json"])
@pytest.mark.parametrize(("kind", "place"), [*itertools.product(CHANGED, (0, 2)), *((kind, 2) for kind in LATER)])
def test_an_answer_that_cannot_be_is_refused_wherever_it_comes(serve, kind: str, place: int, wire: str):
    change, told = {**CHANGED, **LATER}[kind]
    stub = serve(change=lambda n, reply, answer: change(reply, answer) if n == place else (reply, answer))
    target, said = asked_until_refused(stub, f"wire={wire}")
    assert f"{stub.url}: answer {place + 1} of this run is refused: " in said
    assert target.answered == 2 * place
    assert traffic_of(target) == Traffic(answered=2 * place, sent=place + 1, refused=2)
    with pytest.raises(AnswerError, match=told):
        raise AnswerError(said)
    assert said.isprintable()
    assert torch.equal(target.scores(batch()), torch.from_numpy(linear(batch().numpy())))  # asked again, it goes on


def served(head: bytes, *pieces: bytes, status: bytes = b"200 OK") -> Iterator[bytes]:
    return iter([b"HTTP/1.1 " + status + b"\r\n" + head, *pieces])


def slowly(data: bytes) -> Iterator[bytes]:
    """A byte now and then, with no end."""
    waiting = threading.Event()
    for number in itertools.count():
        yield data[number : number + 1] or b"x"
        waiting.wait(0.05)


def bomb() -> Iterator[bytes]:
    """Four gigabytes of zeros in four megabytes."""
    packer = zlib.compressobj(9, wbits=31)
    return itertools.chain((packer.compress(bytes(2**20)) for _ in range(4096)), (packer.flush() for _ in range(1)))


def forever(piece: bytes) -> Iterator[bytes]:
    return itertools.repeat(piece)


LENGTH = b"Content-Length: %d\r\n"
#: What may stand in place of an answer, from the header with the length of its JSON and its body; what is said then.
WIRES = {
    "five gigabytes announced": (
        lambda head, body: itertools.chain(
            served(head + b"\r\n" + LENGTH % (5 * 10**9) + b"\r\n"), forever(bytes(65536))
        ),
        "announces 5000000000 bytes; expected at most",
    ),
    "a length of a thousand digits": (
        lambda head, body: served(head + b"\r\nContent-Length: " + b"9" * 1000 + b"\r\n\r\n", body),
        "announces 9999",
    ),
    "no end": (
        lambda head, body: itertools.chain(served(head + b"\r\n\r\n", body), forever(bytes(65536))),
        "goes on after",
    ),
    "chunks without end": (
        lambda head, body: itertools.chain(
            served(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n"), forever(b"400\r\n" + bytes(1024) + b"\r\n")
        ),
        "goes on after",
    ),
    "the length of a chunk without end": (
        lambda head, body: itertools.chain(
            served(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n"), forever(b"0" * 65536)
        ),
        "LineTooLong|Connection broken",
    ),
    "a gzip bomb": (
        lambda head, body: itertools.chain(served(head + b"\r\nContent-Encoding: gzip\r\n\r\n"), bomb()),
        "goes on after",
    ),
    "a gzip bomb in chunks": (
        lambda head, body: itertools.chain(
            served(head + b"\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (b"%x\r\n" % len(piece) + piece + b"\r\n" for piece in bomb() if piece),
        ),
        "goes on after",
    ),
    "half a gzip": (
        lambda head, body: served(head + b"\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(body)[:-20]),
        "stops before its end|is no gzip",
    ),
    "no gzip": (lambda head, body: served(head + b"\r\nContent-Encoding: gzip\r\n\r\n", body), "is no gzip"),
    "an unknown encoding": (
        lambda head, body: served(head + b"\r\nContent-Encoding: zstd\r\n\r\n", body),
        "Content-Encoding 'zstd'; expected none, or gzip",
    ),
    "a body of a byte now and then": (
        lambda head, body: itertools.chain(served(head + b"\r\n\r\n"), slowly(b"")),
        "no whole answer in 0.4 seconds",
    ),
    "headers of a byte now and then": (
        lambda head, body: itertools.chain(served(b"X: "), slowly(b"")),
        "no whole answer in 0.4 seconds",
    ),
    "a thousand headers": (
        lambda head, body: served(b"".join(b"X%d: a\r\n" % i for i in range(1000)) + head + b"\r\n\r\n", body),
        "100 headers",
    ),
    "a header without end": (lambda head, body: itertools.chain(served(b"X: "), forever(b"a" * 65536)), "LineTooLong"),
    "to be continued": (
        lambda head, body: itertools.chain([b"HTTP/1.1 "], forever(b"100 Continue\r\n\r\nHTTP/1.1 ")),
        "no whole answer in 0.4 seconds",
    ),
    "an error without end": (
        lambda head, body: itertools.chain(served(b"\r\n", status=b"400 No"), forever(b"sorry ")),
        "answered 400: sorry sorry",
    ),
    "an error as a gzip bomb": (
        lambda head, body: itertools.chain(served(b"Content-Encoding: gzip\r\n\r\n", status=b"500 No"), bomb()),
        "answered 500",
    ),
    "a redirection": (
        lambda head, body: served(b"Location: http://127.0.0.1:9/\r\n\r\n", status=b"307 There"),
        "redirects are not followed",
    ),
    "no HTTP": (lambda head, body: iter([b"SSH-2.0-OpenSSH_9\r\n"]), "BadStatusLine"),
    "a JSON length of thousands of digits": (
        lambda head, body: served(b"Inference-Header-Content-Length: " + b"9" * 5000 + b"\r\n\r\n", body),
        "expected a number of bytes",
    ),
    "brackets": (lambda head, body: served(b"\r\n", b"[" * 100_000), "no JSON object"),
    "a number of thousands of digits": (
        lambda head, body: served(b"\r\n", b'{"outputs": [' + b"9" * 5000 + b"]}"),
        "no JSON object",
    ),
}


@pytest.mark.parametrize("kind", WIRES)
def test_no_answer_takes_more_memory_or_time_than_it_may(serve, kind: str):
    """Bodies of gigabytes are cut after kilobytes: the stub's end of the connection breaks in the midst of them."""
    made, told = WIRES[kind]
    sent = 0

    def wire(n: int, head: bytes, body: bytes) -> Iterator[bytes] | None:
        nonlocal sent
        if n != 1:
            return None
        for piece in made(head, body):
            sent += len(piece)
            yield piece

    stub = serve(wire=lambda n, head, body: wire(n, head, body) if n == 1 else None)
    target, said = asked_until_refused(
        stub, f"wire=binary,retries=0,read=2,total={0.4 if 'whole answer' in told else 20}"
    )
    assert target.answered == 2
    with pytest.raises(TargetError, match=told):
        raise TargetError(said)
    assert said.isprintable()
    assert len(said) < 600
    assert sent < 80 * 2**20  # what the sockets of both ends hold, not what was meant to be sent
    assert torch.equal(target.scores(batch()), torch.from_numpy(linear(batch().numpy())))


@pytest.mark.parametrize(
    "pack", [gzip.compress, zlib.compress, lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_an_honest_compressed_answer_is_taken(serve, pack, chunked: bool):
    def wire(n: int, head: bytes, body: bytes) -> Iterator[bytes]:
        packed = pack(body)
        encoding = b"\r\nContent-Encoding: " + (b"deflate" if packed[:1] == b"x" else b"gzip") + b"\r\n"
        if not chunked:
            return served(head + encoding + LENGTH % len(packed) + b"\r\n", packed)
        cut = (b"%x\r\n" % len(part) + part + b"\r\n" for part in (packed[:5], packed[5:]))
        return served(head + encoding + b"Transfer-Encoding: chunked\r\n\r\n", *cut, b"0\r\n\r\n")

    assert asked_until_refused(serve(wire=wire))[1] == ""


@pytest.mark.parametrize(
    "address",
    [
        "http://h:port/v2/models/n", "http://h:99999/v2", "http://h:0/v2", "http://[::1/v2", "http://h/v2 /models/n",
        "http://h /v2", "http:///v2/models/n", "http:/h/v2", "file:///etc/passwd", "h:80/v2", "//h/v2", "http://",
        "http://h/v2\\models", "http://h\x00/v2", "http://h/\x1b[31m", "http://" + "a" * 70 + ".b/v2", "http://../v2",
    ],
)  # fmt: skip
def test_malformed_addresses_are_refused_in_a_line(address: str):
    with pytest.raises((InputError, TargetError), match=r"no address of a server|a model has") as caught:
        open_target(f"oip:{address}", num_classes=3)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "address",
    [
        "http://u:hush@h/v2/models/n", "http://hush@h/v2", "http://u:hush@h:99999/v2", "http://u:hush@[::1/v2",
        "http:/u:hush@h/v2", "u:hush@h/v2", "file://u:hush@h/", "http://u:hu sh@h/v2", "http://h/v2?token=hush",
        "http://h:x/v2?token=hush", "ftp://h/v2?token=hush", "http://h/v2#hush",
    ],
)  # fmt: skip
def test_no_malformed_address_tells_its_secret(address: str):
    with pytest.raises((InputError, TargetError)) as caught:
        open_target(f"oip:{address}", num_classes=3)
    assert "hush" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://[::1]:9", "http://no-such-host.invalid"])
def test_a_server_that_is_not_there_is_told_in_a_line(address: str):
    with pytest.raises(TargetError, match="sent 1 times: is the server up") as caught:
        open_target(f"oip:{address}/v2/models/net,retries=0,connect=2")
    assert str(caught.value).isprintable()


def test_metadata_without_end_are_cut(serve):
    stub = serve(metadata={"name": "net", "filler": "x" * 2**21})
    with pytest.raises(TargetError, match=r"announces .* bytes; expected at most 1048576"):
        opened(stub)


def test_copies_that_fill_up_a_batch_must_be_answered_alike(serve):
    stub = serve(shape=(4, 3, -1, -1), change=lambda n, reply, y: (reply, y[::-1] if n else y))
    target = opened(stub)
    target.scores(batch(3))
    with pytest.raises(AnswerError, match=r"image 3 was asked 2 times .* keep the order"):
        target.scores(batch(3, seed=1))
    check_repeated(torch.zeros(3, 2), 3)


def test_sizes_of_maps_go_with_those_of_images():
    firsts = Firsts()
    for pixels, side in ((64, 8), (128, 16), (100, 13), (129, 17), (65, 8)):
        firsts.check(Raw(torch.zeros(1)), (side, side), (pixels, pixels))
    fixed = Firsts()
    for pixels in (64, 128, 1000):
        fixed.check(Raw(torch.zeros(1)), (60, 60), (pixels, pixels))
    with pytest.raises(AnswerError, match="2x2 values a class for images of 96x96; expected the same or in proportion"):
        firsts.check(Raw(torch.zeros(1)), (2, 2), (96, 96))
    with pytest.raises(AnswerError, match="expected a map"):
        Firsts().check(Raw(torch.zeros(1)), (1, 1), (24, 32))


@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_what_a_softmax_gives_is_taken_and_its_logits_are_not(images: int, classes: int, seed: int):
    logits = 4 * torch.randn(images, classes, 3, 4, generator=torch.Generator().manual_seed(seed))
    logits[:, :, 0, 0] = torch.arange(classes).sub(1.0)  # one pixel with a value below zero
    scores = logits.softmax(1)
    check_values(scores, "probabilities")
    check_values(logits, "logits")
    check_scores(scores, torch.zeros(images, 3, 3, 4), classes)
    for wrong, kind in ((logits, "probabilities"), (logits, "scores"), (scores, "logits")):
        with pytest.raises(AnswerError, match="image 1 of"):
            check_values(wrong, kind)


class Elsewhere:
    """A target that is no network and gives what it is told to."""

    name, num_classes, offers, device = "elsewhere", 3, frozenset({"scores", "labels"}), torch.device("cpu")

    def __init__(self, *answers: torch.Tensor) -> None:
        self.answers = list(answers)

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        return self.answers.pop(0)


GOOD = torch.from_numpy(linear(batch().numpy()))
BAD = [GOOD * torch.nan, GOOD * 2, -GOOD, GOOD[:1], GOOD[:, :2], GOOD[..., :1, :1], GOOD.round().long()]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_target_of_ones_own_is_checked_as_well_and_a_refused_answer_counts_nothing(bad: torch.Tensor):
    target = Metered(Elsewhere(GOOD, bad, GOOD))
    target.scores(batch())
    with pytest.raises(AnswerError):
        target.scores(batch())
    assert target.answered == 2
    assert torch.equal(target.scores(batch()), GOOD)


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_refused_answer_is_not_kept(tmp_path, bad: torch.Tensor):
    spool = Spooled(Elsewhere(bad, GOOD), tmp_path)
    with pytest.raises(AnswerError):
        spool.scores(batch())
    assert list(tmp_path.rglob("*.np*")) == []
    again = Spooled(Elsewhere(GOOD), tmp_path)
    assert torch.equal(again.scores(batch()), GOOD)
    assert torch.equal(Spooled(Elsewhere(), tmp_path).scores(batch()), GOOD)


def test_an_answer_in_the_folder_that_cannot_be_used_is_told_and_asked_again(tmp_path):
    """As earlier versions kept them, or as somebody else left them: each is removed with a notice."""

    def kept(packed: bool, content: np.ndarray) -> Callable[[Path], Path]:
        def harm(file: Path) -> Path:
            file.unlink()
            if packed:
                np.savez_compressed(file, answer=content)
                return file
            np.save(file.with_suffix(".npy"), content, allow_pickle=True)
            return file.with_suffix(".npy")

        return harm

    def cut(length: int) -> Callable[[Path], Path]:
        def harm(file: Path) -> Path:
            file.write_bytes(file.read_bytes()[:length])
            return file

        return harm

    wrong = [
        (GOOD[0] * torch.inf).numpy(), (GOOD[0] * 7).numpy(), GOOD[0, :2].numpy(), GOOD[0].numpy().astype(str),
        np.array([{}]), np.zeros((3, 600, 700), np.float32), np.float32(0.5), GOOD[0].numpy().astype(bool),
    ]  # fmt: skip
    harms = [kept(packed, content) for packed in (False, True) for content in wrong] + [cut(0), cut(60), cut(300)]
    for harm in harms:
        Spooled(Elsewhere(GOOD), tmp_path).scores(batch())
        one, *_ = sorted(tmp_path.rglob("*.np*"))
        one = harm(one)
        told: list[str] = []
        # Which of the two it is follows from the name; only that one is asked about.
        again = [Spooled(Elsewhere(GOOD[[row]]), tmp_path, warn=told.append) for row in (0, 1)]
        found = []
        for spool, row in zip(again, (0, 1), strict=True):
            found.append(spool.scores(batch()[[row]]))
        assert torch.equal(torch.cat(found), GOOD)
        assert len(told) == 1
        assert str(one) in told[0]
        assert "asked again" in told[0]


def flat(value: float, channels: int = 1) -> torch.Tensor:
    return torch.full((1, channels, 4, 5), value)


@pytest.mark.parametrize(
    ("kind", "value"), [("sigmoid", 0.0), ("sigmoid", 1.0), ("multilabel", 0.0), ("binary_logit", -9.0)]
)
def test_a_mask_that_is_empty_or_full_is_an_answer(kind: str, value: float):
    check_values(flat(value, 2 if kind == "multilabel" else 1), kind)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("sigmoid", flat(0.5), "every channel has the value 0.5 at every pixel"),
        ("binary_logit", flat(-0.5), "every channel has the value -0.5 at every pixel"),
        ("binary_logit", flat(0.0), "all in \\[0, 1\\], where logits were promised: give outputs=sigmoid"),
        ("multilabel_logits", torch.rand(1, 3, 4, 5), "give outputs=multilabel$"),
        ("sigmoid", torch.linspace(-3, 3, 20).view(1, 1, 4, 5), "expected \\[0, 1\\]: give outputs=binary_logit"),
        ("multilabel", torch.randn(1, 3, 4, 5).mul(9), "give outputs=multilabel_logits if the model has no sigmoid"),
        ("multilabel", torch.randn(1, 3, 4, 5).softmax(1), "as those of a softmax: give outputs=probabilities"),
        ("binary_logit", torch.eye(4, 5).mul(255).view(1, 1, 4, 5), "give outputs=labels,values=\\[0, 255\\]"),
        ("sigmoid", torch.full((1, 1, 4, 5), torch.nan), "NaN"),
        ("binary_logit", torch.full((1, 1, 4, 5), -torch.inf), "infinite"),
    ],
)
def test_yes_no_channels_that_are_not_what_was_promised_are_refused(kind: str, values: torch.Tensor, said: str):
    with pytest.raises(AnswerError, match=said):
        check_values(values, kind)


def test_masks_that_part_the_image_are_yes_no_channels():
    one = torch.eye(4, 5).view(1, 1, 4, 5)
    check_values(torch.cat([one, 1 - one], 1), "multilabel")
    check_values(torch.randn(1, 3, 4, 5).softmax(1), "multilabel", first=False)


def test_logits_of_an_attacked_image_may_lie_in_the_unit_interval_once_others_did_not():
    later = torch.rand(1, 1, 4, 5).mul(0.4).add(0.3)
    with pytest.raises(AnswerError, match="where logits were promised"):
        check_values(later, "binary_logit")
    check_values(later, "binary_logit", first=False)
    check_values(torch.cat([later, later - 5]), "binary_logit")  # one of a batch that shows what they are


@pytest.mark.parametrize("step", [1 / 256, 1 / 128])
def test_rounding_to_steps_is_no_sum_that_is_off(step: float):
    p = torch.randn(2, 40, 4, 5, generator=torch.Generator().manual_seed(0)).softmax(1).div(step).floor().mul(step)
    with pytest.raises(AnswerError, match="sum to one only within"):
        check_values(p, "probabilities")
    nearest = (
        torch.randn(2, 40, 4, 5, generator=torch.Generator().manual_seed(0)).softmax(1).div(step).round().mul(step)
    )
    check_values(nearest, "probabilities", step=step)
