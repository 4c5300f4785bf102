"""Nothing goes out of this machine unless it was allowed, whatever library loads; and words say so."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import urllib.request

import pytest
import torch

from segradius.core.errors import InputError
from segradius.models import load_model
from segradius.models.backbones import load_backbone
from segradius.models.downloads import is_absent, may_download, offline
from segradius.models.networks import PSPNet

WENT_OUT: list[str] = []
HERE = {"localhost", "127.0.0.1", "::1", ""}
_WATCHING = [False]


def _watch(event, arguments):
    """Sees what segradius lets through, as it is added to the interpreter after its own, and lets nothing out."""
    if not _WATCHING[0] or event not in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        return
    place = arguments[1] if event == "socket.connect" else arguments[0]
    host = place[0] if isinstance(place, tuple) else place if event != "socket.connect" else ""
    if str(host) not in HERE:
        WENT_OUT.append(str(host))
        raise OSError(f"the test's own network is closed: {host}")


@pytest.fixture
def closed(monkeypatch, tmp_path):
    """A machine whose network is closed and whose caches are empty; what was asked for stands in the list."""
    with offline("nothing", allowed=False):
        pass
    if not getattr(_watch, "added", False):
        sys.addaudithook(_watch)
        _watch.added = True
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with contextlib.suppress(ModuleNotFoundError):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    WENT_OUT.clear()
    _WATCHING[0] = True
    yield WENT_OUT
    _WATCHING[0] = False


CODE = """
import socket, threading, urllib.request
import torch

def fetched():
    urllib.request.urlopen("https://host.example/net.pth")

def resolved():
    socket.getaddrinfo("host.example", 443)

def connected():
    socket.create_connection(("203.0.113.7", 443), timeout=1)

def swallowed():
    try:
        connected()
    except OSError:
        pass
    return torch.nn.Conv2d(3, 2, 1)

def late():
    def network(images):
        connected()
    return network

def asked():
    swallowed()
    raise ValueError("no such thing")

def local():
    server = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(server.getsockname()).close()
    server.close()
    return torch.nn.Conv2d(3, 2, 1)
"""

SPECS = [
    "hf:nobody/no-such-network",
    "hf:nobody/no-such-network,revision=main",
    "hf:nobody/no-such-network,local_files_only=false",
    "torchvision:lraspp_mobilenet_v3_large,weights=DEFAULT",
    "torchvision:lraspp_mobilenet_v3_large,weights_backbone=DEFAULT",
    "torchvision:deeplabv3_resnet50,weights=COCO_WITH_VOC_LABELS_V1",
    "smp:Unet,encoder_name=resnet18,encoder_weights=imagenet,classes=3",
    "smp:Unet,encoder_name=tu-resnet18,encoder_weights=true,classes=3",
    "timm:create_model,model_name=resnet18,pretrained=true",
    "torchvision.models:resnet18,weights=DEFAULT",
    "torch.hub:load,repo_or_dir=nobody/no-such-network,model=net",
    "torch.hub:load_state_dict_from_url,url=https://host.example/net.pth",
    "going_out:fetched",
    "going_out:resolved",
    "going_out:connected",
    "going_out:late",
]


def need(spec):
    for library, extra in (("hf:", "transformers"), ("smp:", "segmentation_models_pytorch"), ("timm:", "timm")):
        if spec.startswith(library):
            pytest.importorskip(extra)


@pytest.fixture
def code(tmp_path, monkeypatch):
    (tmp_path / "going_out.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    yield
    sys.modules.pop("going_out", None)


@pytest.mark.filterwarnings("ignore")  # of the libraries, on their way to an error
@pytest.mark.parametrize("spec", SPECS)
def test_nothing_goes_out_and_the_error_says_what_to_do(spec, closed, code):
    need(spec)
    with pytest.raises(InputError, match=r"--allow-download.*allow_download=True") as caught:
        load_model(spec)
    assert "\n" not in str(caught.value)
    assert closed == []


def test_another_error_after_something_was_asked_for_in_vain_is_still_told(closed, code):
    with pytest.raises(InputError, match=r"going_out:asked failed .*no such thing.*--allow-download"):
        load_model("going_out:asked")
    assert closed == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spec", [spec for spec in SPECS if "going_out" in spec or "torchvision:l" in spec])
def test_where_it_is_allowed_it_goes_out(spec, closed, code):
    with pytest.raises(Exception, match=r"closed|error|Error|refused"):
        load_model(spec, allow_download=True)
    assert closed


def test_what_a_network_does_not_need_does_not_stop_it(closed, code):
    assert load_model("going_out:swallowed").num_classes == 2
    assert load_model("going_out:local").num_classes == 2
    assert closed == []


@pytest.mark.parametrize("spec", ["torchvision:lraspp_mobilenet_v3_large,num_classes=3", "demo", "pspnet_light"])
def test_what_is_here_is_loaded(spec, closed):
    assert load_model(spec).num_classes
    assert closed == []


@pytest.mark.parametrize("source", ["torchvision:resnet18", "timm:resnet18"])
def test_backbones_too(source, closed):
    if source.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(InputError, match="--allow-download"):
        load_backbone(PSPNet(3, layers=18, width=8), source)
    assert closed == []


def test_weights_in_the_cache_are_used(closed, tmp_path):
    from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights as Weights

    name, url = "torchvision:lraspp_mobilenet_v3_large", Weights.DEFAULT.url
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    network = load_model(f"{name},num_classes=21").network
    torch.save(network.state_dict(), cache / url.rsplit("/", 1)[1])
    found = load_model(f"{name},weights=DEFAULT")
    assert torch.equal(found.network.classifier.low_classifier.weight, network.classifier.low_classifier.weight)
    assert closed == []


def test_switches_are_as_they_were_before_also_after_an_error(monkeypatch):
    hub = pytest.importorskip("huggingface_hub.constants")
    for before in (None, "0"):
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        if before is not None:
            monkeypatch.setenv("HF_HUB_OFFLINE", before)
        for fails in (False, True):
            with contextlib.suppress(KeyError), offline("it", allowed=False):
                assert (os.environ["HF_HUB_OFFLINE"], hub.HF_HUB_OFFLINE, may_download()) == ("1", True, False)
                if fails:
                    raise KeyError("other errors pass")
            assert (os.environ.get("HF_HUB_OFFLINE"), hub.HF_HUB_OFFLINE, may_download()) == (before, False, True)


def test_other_threads_go_out_as_before(closed):
    said = []

    def elsewhere():
        try:
            socket.create_connection(("203.0.113.7", 443), timeout=1)
        except OSError as error:
            said.append(str(error))

    with offline("it", allowed=False):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert said == ["the test's own network is closed: 203.0.113.7"]


def test_an_error_that_is_none_of_the_network_stays_what_it_is():
    with pytest.raises(InputError, match=r"^bad value$"), offline("it", allowed=False):
        raise InputError("bad value")
    assert not is_absent(ValueError())


def test_files_here_are_opened_by_their_address(tmp_path):
    (tmp_path / "a.txt").write_text("here")
    with offline("it", allowed=False), urllib.request.urlopen((tmp_path / "a.txt").as_uri()) as file:
        assert file.read() == b"here"
