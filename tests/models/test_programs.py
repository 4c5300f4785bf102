"""TorchScript and torch.export: as the eager network, attacked, certified, refused in words; no code of a file runs."""

from __future__ import annotations

import io
import json
import os
import pickle

import pytest
import torch
from made_programs import ANY, SIZE, Net, export, freeze, net, quiet, rewritten, script, trace
from torch import nn
from torch.nn import functional

import segradius as sr
from segradius.core.errors import InputError, ModelError
from segradius.models import fingerprint, load_model, load_state, screening
from segradius.models.code import files_of
from segradius.models.holding import kept
from segradius.training.learner import Learner

MANY = ({0: ANY, 2: ANY, 3: ANY},)


def grown(images):
    batch, some = torch.export.Dim("batch", min=1, max=4), torch.export.Dim("some", min=2, max=64)
    return ({0: batch, 2: 8 * some, 3: 8 * torch.export.Dim("wide", min=2, max=64)},), images


def single(path):
    return export(net(), path, torch.rand(1, 3, *SIZE))


KINDS = {
    "scripted": ("torchscript", lambda path: script(net(), path)),
    "scripted in training mode": ("torchscript", lambda path: script(net().train(), path)),
    "traced": ("torchscript", lambda path: trace(net(), path)),
    "frozen": ("torchscript", lambda path: freeze(net(), path)),
    "exported, any size": ("pt2", lambda path: export(net(), path, shapes=MANY)),
    "exported, multiples": ("pt2", lambda path: export(net(), path, shapes=grown(None)[0])),
    "exported, one size": ("pt2", lambda path: export(net(), path, shapes=({0: ANY},))),
    "exported, one image": ("pt2", single),
    "exported, two images": ("pt2", lambda path: export(net(), path)),
}
OUTCOMES: dict[str, list[str]] = {}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The file of each kind, made once."""
    folder = tmp_path_factory.mktemp("made")
    places = {kind: folder / str(number) / "net.pt" for number, kind in enumerate(KINDS)}
    for kind, (_, make) in KINDS.items():
        places[kind].parent.mkdir()
        make(places[kind])
    return places


def loaded(made, kind, **options):
    return load_model(f"{KINDS[kind][0]}:{made[kind]}", normalisation="none", **options)


@pytest.fixture(scope="module", autouse=True)
def told():
    yield
    print("\n" + "\n".join(f"{kind:<28} {', '.join(did)}" for kind, did in OUTCOMES.items()))
    done = [each for did in OUTCOMES.values() for each in did]
    refused = sum(each.startswith("refused") for each in done)
    print(f"kinds {len(OUTCOMES)}, right {len(done) - refused}, refused in words {refused}, wrong 0")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_the_logits_and_gradients_of_the_eager_network_and_is_attacked(made, kind):
    model, eager = loaded(made, kind), sr.wrap(net(), normalisation="none")
    did = OUTCOMES.setdefault(kind, ["loaded"])
    assert model.num_classes == 3
    assert model.weights.whole
    for count in (1, 2, 3, 5):
        images = torch.rand(count, 3, *SIZE, requires_grad=True)
        z, expected = model.logits(images), eager.logits(images)
        torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-5)
        pull = torch.rand_like(z)
        found, true = (torch.autograd.grad((each * pull).sum(), images)[0] for each in (z, expected))
        torch.testing.assert_close(found, true, rtol=1e-3, atol=1e-5)
    did.append("logits and gradients equal")
    images = torch.rand(3, 3, *SIZE)
    labels = eager.logits(images).argmax(1)
    attack = sr.make_attack("pgd", norm="linf", eps=0.1, steps=1)
    one, other = (attack(each, images, labels).delta for each in (model, eager))
    assert one.abs().amax() > 0.05
    assert (one - other).abs().gt(1e-4).float().mean() < 0.01  # the sign of a gradient next to nothing
    did.append("attacked")


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_train_is_refused_and_what_trains_has_the_gradients_of_the_eager_network(made, kind):
    did = OUTCOMES.setdefault(kind, ["loaded"])
    if "scripted" not in kind:
        with pytest.raises(InputError, match=r"cannot be trained: net\.pt was (traced|frozen|exported)"):
            Learner(loaded(made, kind))
        did.append("refused to train")
        return
    model, eager, images = loaded(made, kind), net(), torch.rand(2, 3, *SIZE)
    learner, names = Learner(model).train(), dict(eager.named_parameters())
    for module in (learner, eager.train()):
        torch.manual_seed(7)
        module(images)["out"].square().mean().backward()
    for name, parameter in model.network.program.named_parameters():
        torch.testing.assert_close(parameter.grad, names[name].grad, rtol=1e-3, atol=1e-5)
    state = model.network.state_dict()
    assert state.keys() == eager.state_dict().keys()
    torch.testing.assert_close(state["norm.running_mean"], eager.norm.running_mean)
    did.append("trained")


@pytest.mark.parametrize(("make", "source"), [(trace, "torchscript"), (export, "pt2")])
def test_one_made_in_training_mode_is_refused(tmp_path, make, source):
    path = make(net().train(), tmp_path / "net.pt")
    with pytest.raises(InputError, match=r"in training mode: its batch norm and dropout would|dropout and batch norm"):
        load_model(f"{source}:{path}")


def test_a_batch_norm_without_statistics_is_not_taken_for_one_in_training(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    images = torch.rand(1, 3, *SIZE)
    made = {
        "torchscript": trace(network, tmp_path / "a.pt", images),
        "pt2": export(network, tmp_path / "b.pt2", images),
    }
    for source, path in made.items():
        model = load_model(f"{source}:{path},batch=1", normalisation="none")
        torch.testing.assert_close(model.logits(images), network(images), rtol=1e-4, atol=1e-5)


def test_a_trace_of_one_image_is_called_image_by_image_and_says_so(tmp_path, capsys):
    class Flat(nn.Module):
        def forward(self, x):
            z = x.reshape(1, 3, -1)  # a constant in the trace
            return (z - z.mean(2, keepdim=True)).reshape(1, 3, int(x.shape[2]), int(x.shape[3]))

    path = trace(Flat(), tmp_path / "flat.pt", torch.rand(1, 3, 128, 128))
    model, images = load_model(f"torchscript:{path}", normalisation="none"), torch.rand(3, 3, 128, 128)
    assert "is called image by image (batch=1)" in capsys.readouterr().err
    expected = torch.cat([Flat()(image[None]) for image in images])
    torch.testing.assert_close(model.logits(images), expected)
    with pytest.raises(InputError, match=r"batch=0: expected how many images"):
        load_model(f"torchscript:{path},batch=0")


def test_the_one_size_of_an_export_is_named_with_the_option_that_says_what_to_do(tmp_path):
    path, images = single(tmp_path / "net.pt2"), torch.rand(2, 3, 20, 30)
    with pytest.raises(InputError, match=r"20x30 is not of the one size .*16x24.*--size 16x24, or size=.*'resize'"):
        load_model(f"pt2:{path}", normalisation="none").logits(images)
    rule = {"exact": list(SIZE), "mode": "resize"}
    model, eager = (load_model(f"pt2:{path}", normalisation="none", size=rule), sr.wrap(net(), size=rule))
    torch.testing.assert_close(model.logits(images), eager.logits(images), rtol=1e-4, atol=1e-5)
    path = export(net(), tmp_path / "other.pt2", shapes=grown(None)[0])
    model, eager = load_model(f"pt2:{path}", normalisation="none"), sr.wrap(net(), size={"multiple_of": 8})
    assert model.size.multiple_of == 8
    torch.testing.assert_close(model.logits(images), eager.logits(images), rtol=1e-4, atol=1e-5)


def test_types_and_devices_are_set_where_they_can_be_and_refused_where_not(made):
    model = loaded(made, "scripted", dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert model.logits(torch.rand(1, 3, *SIZE)).dtype == torch.float32
    with pytest.raises(InputError, match=r"RuntimeError: expected scalar type Float but found BFloat16"):
        loaded(made, "traced", dtype="bfloat16")  # its types are constants
    for kind in ("frozen", "exported, any size"):
        with pytest.raises(
            InputError, match=r"dtype cannot be set: the types in .*net\.pt.* are fixed as torch\.float32"
        ):
            loaded(made, kind, dtype="bfloat16")
    with pytest.raises(InputError, match=r"device 'meta' cannot be used: .* are constants of its program"):
        loaded(made, "frozen").network.to("meta")
    moved = loaded(made, "exported, any size").network.to("meta")  # its own grid goes there too
    assert moved(torch.rand(2, 3, *SIZE, device="meta"))["out"].shape == (2, 3, *SIZE)


def test_a_script_that_changes_its_buffers_is_put_back_as_any_network(tmp_path):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(3, 3, 1)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen = self.seen + 1
            return self.head(x)

    model = load_model(f"torchscript:{script(Counts(), tmp_path / 'net.pt')}", normalisation="none")
    with kept(model.network) as changed:
        model.logits(torch.rand(1, 3, *SIZE))
    assert changed == ["buffer 'program.seen'"]
    assert model.network.state_dict()["seen"] == 0


def test_bands_are_those_of_the_program(tmp_path):
    network, images = nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU()).eval(), torch.rand(2, 4, *SIZE)
    made = {
        "torchscript": trace(network, tmp_path / "a.pt", images),
        "pt2": export(network, tmp_path / "b.pt2", images),
    }
    for source, path in made.items():
        model = load_model(f"{source}:{path}", normalisation="none")
        assert model.bands == 4
        torch.testing.assert_close(model.logits(images), network(images))


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_a_script_tells_its_bands_by_its_first_convolution_where_its_classes_are_known(tmp_path, bands):
    network = nn.Sequential(nn.Conv2d(bands, 2, 3), nn.ReLU()).eval()
    grouped = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 2, 1)).eval()  # whose weights have 1 channel
    for number, make in enumerate((script, freeze, lambda it, path: trace(it, path, torch.rand(1, bands, *SIZE)))):
        spec = f"torchscript:{make(network, tmp_path / f'{number}.pt')}"
        model = load_model(spec, num_classes=2, normalisation="none")
        assert model.bands == bands
        with pytest.raises(
            InputError, match=f"takes {bands} bands? and the images have 2: give images of {bands} band"
        ):
            model.check(torch.rand(1, 2, *SIZE))
        if bands == 1:
            with pytest.raises(InputError, match="takes 1 band and its normalisation is imagenet, which is for 3"):
                load_model(spec, num_classes=2, normalisation="imagenet")
    assert load_model(f"torchscript:{script(grouped, tmp_path / 'g.pt')}", num_classes=2).bands is None


class Sized(nn.Module):
    """Takes sides that are multiples of 4, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2] % 4 == 0, "expected multiples of 4"
        return self.head(x)


def test_what_a_script_says_itself_is_told_and_the_size_that_it_takes_is_given_with_its_file(tmp_path):
    spec, images = f"torchscript:{script(Sized().eval(), tmp_path / 'sized.pt')}", torch.rand(1, 3, 18, 22)
    with pytest.raises(ModelError, match=r"AssertionError: expected multiples of 4\. If .* give size=.*bands=") as told:
        load_model(spec, normalisation="none").check(images)
    assert "interpreter" not in str(told.value)
    model = load_model(f"{spec},size={{multiple_of: 4}},bands=3", normalisation="none")
    model.check(images)
    assert (model.size.multiple_of, model.bands) == (4, 3)
    with pytest.raises(InputError, match="unknown size key 'multiple'"):
        load_model(f"{spec},size={{multiple: 4}}")


def test_the_size_of_an_export_is_given_with_its_file(made):
    spec, image = f"pt2:{made['exported, one size']}", torch.rand(1, 3, 20, 30)
    model = load_model(f"{spec},size={{exact: [16, 24], mode: resize}}", normalisation="none")
    assert model.logits(image).shape == (1, 3, 20, 30)


def test_the_identity_is_that_of_the_file(tmp_path):
    class Doubled(Net):
        def forward(self, x):
            return {"out": 2 * super().forward(x)["out"]}

    doubled = Doubled()
    doubled.load_state_dict(net().state_dict())
    paths = [export(network, tmp_path / f"{name}.pt2") for name, network in (("a", net()), ("b", doubled.eval()))]
    first, second = (load_model(f"pt2:{path}", normalisation="none") for path in paths)
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint(first) == fingerprint(load_model(f"pt2:{paths[0]}", normalisation="none"))
    assert list(files_of(f"pt2:{paths[0]}")) == ["a.pt2"]
    assert files_of(f"pt2:{paths[0]}")["a.pt2"][1] != files_of(f"pt2:{paths[1]}")["b.pt2"][1]


def test_each_under_the_name_of_another_is_told_what_to_write(tmp_path):
    scripted, saved, state = script(net(), tmp_path / "s.pt"), single(tmp_path / "e.pt2"), tmp_path / "w.pth"
    torch.save(net().state_dict(), state)
    for text, said in {
        f"pt2:{scripted}": f"a TorchScript program: .* --model torchscript:{scripted}",
        f"torchscript:{saved}": f"a program of torch.export: .* --model pt2:{saved}",
        f"torchscript:{state}": f"a PyTorch checkpoint: give the network .* --weights {state}",
        f"pt2:{tmp_path / 'none.pt2'}": "expected the path of a program of torch.export; .* does not exist",
        f"pt2:{tmp_path}": "is a folder",
        str(scripted): f"a TorchScript program: write torchscript:{scripted}",
        str(saved): f"a program of torch.export: write pt2:{saved}",
        f"pt2:{saved},batches=1": "unknown argument of pt2 'batches'; did you mean 'batch'",
    }.items():
        with pytest.raises(InputError, match=said):
            load_model(text)
    for path, said in ((scripted, "--model torchscript:"), (saved, "--model pt2:")):
        with pytest.raises(InputError, match=f"it is a network with its weights: give it as {said}"):
            load_state(path)


def test_other_weights_are_loaded_into_a_program_by_its_own_names(tmp_path):
    other = net()
    with torch.no_grad():
        other.head.bias.add_(1)
    torch.save({"state_dict": {f"module.{name}": t for name, t in other.state_dict().items()}}, tmp_path / "w.pth")
    model = load_model(f"pt2:{single(tmp_path / 'e.pt2')}", weights=tmp_path / "w.pth", normalisation="none")
    images = torch.rand(2, 3, *SIZE)
    torch.testing.assert_close(model.logits(images), other(images)["out"], rtol=1e-4, atol=1e-5)


def test_what_takes_no_single_batch_of_images_is_named(tmp_path):
    class Two(nn.Module):
        def forward(self, x, depth):
            return x + depth

    images = torch.rand(1, 3, *SIZE)
    with quiet():
        torch.jit.save(torch.jit.script(Two()), str(tmp_path / "two.pt"))
        torch.export.save(torch.export.export(Two(), (images, images)), str(tmp_path / "two.pt2"))
    with pytest.raises(InputError, match="takes x, depth; expected one batch"):
        load_model(f"torchscript:{tmp_path / 'two.pt'}")
    with pytest.raises(InputError, match="expected one batch of images"):
        load_model(f"pt2:{tmp_path / 'two.pt2'}")


class Trap:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def with_program(change):
    """Of the records of an archive: the program changed by ``change``, a function of its JSON."""

    def changed(records):
        program = json.loads(records["models/model.json"])
        change(program)
        return records | {"models/model.json": json.dumps(program).encode()}

    return changed


def traps(marker):
    """Changes of an exported archive, each of which makes a folder if PyTorch loads or runs the archive."""
    code = f"__import__('os').mkdir({str(marker)!r})"
    bomb = pickle.dumps(Trap(marker), 2)

    def sizes(program):
        found = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        found[0]["as_expr"]["expr_str"] = code

    def guards(program):
        program["guards_code"] = [f"{code} is None"]

    def call(program):
        program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.load"

    def name(program):
        program["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = f"x={code}"

    def arguments(program):
        program["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = [f"x={code}"]

    def weights(records):
        config = json.loads(records["data/weights/model_weights_config.json"])
        next(iter(config["config"].values()))["use_pickle"] = True
        key = "data/weights/" + next(iter(config["config"].values()))["path_name"]
        return records | {"data/weights/model_weights_config.json": json.dumps(config).encode(), key: bomb}

    def constants(records):
        config = {
            "config": {"c": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
        }
        named = "data/constants/model_constants_config.json"
        return records | {named: json.dumps(config).encode(), "data/constants/opaque_obj_0": bomb}

    return {
        "sample inputs": lambda records: records | {"data/sample_inputs/model.pt": _torch_saved(Trap(marker))},
        "old weights": lambda records: records | {"data/weights/model.pt": _torch_saved(Trap(marker))},
        "weights": weights,
        "constants": constants,
        "compiled": lambda records: records | {"data/aotinductor/model/a.so": b"\x7fELF"},
        "beside": lambda records: records | {"more.pkl": bomb},
        "size": with_program(sizes),
        "guard": with_program(guards),
        "call": with_program(call),
        "name": with_program(name),
        "arguments": with_program(arguments),
    }


def _torch_saved(thing):
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("trap", traps("x"))
def test_nothing_in_an_exported_archive_runs_but_operators_of_pytorch(made, tmp_path, trap):
    marker, whole = tmp_path / "ran", made["exported, any size"]
    path = rewritten(whole, tmp_path / "trap.pt2", traps(marker)[trap])
    with pytest.raises(InputError, match=r"trap\.pt2.*(refused.*nothing of it was run|compiled code)"):
        load_model(f"pt2:{path}")
    assert not marker.exists()


def test_guards_and_sizes_of_networks_that_people_export_are_arithmetic(made, tmp_path):
    half = "(1 + (((-7) + (((-1) + L['x'].size()[3]) // 4)) // 8))"  # of smp's Segformer, any size
    told = [f"torch.sym_max(1, {half}) < 99999", f"math.ceil({half}) % 99999 != 1", "L['x'].size()[0] >= 1"]
    sizes = "Mul(Integer(4), Max(Integer(1), FloorDiv(Add(Integer(-7), Symbol('s3', positive=True)), Integer(8))))"

    def change(program):
        program["guards_code"] = told

    path = rewritten(made["exported, any size"], tmp_path / "guarded.pt2", with_program(change))
    assert load_model(f"pt2:{path}", normalisation="none").num_classes == 3
    assert screening._is_size(sizes)
    scaled = "TruncToInt(Mul(Float('0.37', precision=53), ToFloat(Symbol('s3', positive=True))))"  # scale_factor=0.37
    assert screening._is_size(scaled)
    assert not screening._is_size(scaled.replace("0.37", "__import__(1)"))
    assert not screening._is_size("Add(\"__import__('os').mkdir('x')\")")
    assert not screening._is_size("Symbol('s3; import os')")
    told += ["torch.load('x') is None"]
    with pytest.raises(InputError, match="a guard that is no comparison of sizes"):
        load_model(f"pt2:{rewritten(path, tmp_path / 'trap.pt2', with_program(change))}")


def test_an_archive_that_is_only_written_anew_still_loads(made, tmp_path):
    whole = made["exported, any size"]
    model = load_model(f"pt2:{rewritten(whole, tmp_path / 'same.pt2', lambda records: records)}", normalisation="none")
    assert model.num_classes == 3


def test_a_script_that_reaches_files_is_refused_before_it_is_loaded(tmp_path):
    class Writes(nn.Module):
        def forward(self, x):
            torch.save(x, "ran")
            return functional.relu(x)

    with pytest.raises(InputError, match=r"its code names 'save', by which a program reaches files"):
        load_model(f"torchscript:{script(Writes(), tmp_path / 'writes.pt')}")
    bomb = tmp_path / "bomb.pt"
    bomb.write_bytes(pickle.dumps(Trap(tmp_path / "ran"), 2))
    with pytest.raises(InputError, match=r"a Python pickle that torch\.save has not written"):
        load_model(f"torchscript:{bomb}")
    trap = rewritten(
        script(net(), tmp_path / "s.pt"),
        tmp_path / "t.pt",
        lambda records: records | {"data.pkl": pickle.dumps(Trap(tmp_path / "ran"), 2)},
    )
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(f"torchscript:{trap}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ('getattr(torch, "sa" "ve")(x, "RAN")', "getattr"),
        ('getattr(torch, "s\\141ve")(x, "RAN")', "getattr"),
        ('getattr(getattr(ops, "aten"), "sa" "ve")(x, "RAN")', "getattr"),
        ('ops.image.write_file("RAN", x)', "write_file"),
    ],
)
def test_a_name_in_pieces_does_not_get_a_script_past_the_reader(tmp_path, call, said):
    class Relu(nn.Module):
        def forward(self, x):
            return functional.relu(x)

    ran, first = tmp_path / "ran", "Tensor) -> Tensor:\n"

    def change(records):
        codes = {name: code.decode() for name, code in records.items() if name.endswith(".py")}
        line = f"{first}    {call.replace('RAN', str(ran))}\n"
        changed = {name: code.replace(first, line).encode() for name, code in codes.items()}
        assert any(str(ran).encode() in code for code in changed.values())
        return records | changed

    trap = rewritten(script(Relu(), tmp_path / "s.pt"), tmp_path / "t.pt", change)
    with pytest.raises(InputError, match=f"its code names '{said}', by which a program reaches files"):
        load_model(f"torchscript:{trap}")
    assert not ran.exists()


@pytest.mark.parametrize("suffix", ["pt", "pt2"])
def test_a_file_that_ends_too_early_is_told(tmp_path, suffix):
    source, make = ("torchscript", script) if suffix == "pt" else ("pt2", export)
    content, path = make(net(), tmp_path / f"whole.{suffix}").read_bytes(), tmp_path / f"cut.{suffix}"
    for end in [*range(0, len(content), len(content) // 40), len(content) - 1]:
        path.write_bytes(content[:end])
        with pytest.raises(InputError) as caught:
            load_model(f"{source}:{path}")
        assert "\n" not in str(caught.value)
