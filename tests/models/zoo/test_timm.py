"""Networks of timm's: as they are, cut at their feature stages, with weights from timm's own cache, and nothing downloaded."""

from __future__ import annotations

import builtins
import socket

import pytest
import torch
from safetensors.torch import save_file

from exitbench.models.cost import measure_costs
from exitbench.models.errors import ForeignModelError, InputError
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.search_model import relative_difference
from exitbench.models.zoo import timm_package as adapter
from exitbench.models.zoo.timm_model import find_timm, timm_network

timm = pytest.importorskip("timm")

SHAPE = (3, 32, 32)
SMALL_VIT = "depth=5, embed_dim=24, num_heads=2, img_size=32, patch_size=8"
CUT = {
    "a list of features": ("resnet10t", "", 5),
    "batch normalisation with an activation in it": ("efficientnet_b0", "", 5),
    "a stem whose activation stands apart": ("mobilenetv3_small_050", "", 5),
    "channels last": ("swinv2_cr_tiny_224", "img_size=64, embed_dim=24, num_heads=(1, 2, 2, 3), depths=(1, 1, 1, 1)", 4),
    "some of the features": ("resnet10t", "out_indices=(1, 3)", 2),
    "a transformer": ("vit_tiny_patch16_224", SMALL_VIT, 4),
    "a transformer of few blocks": ("vit_tiny_patch16_224", SMALL_VIT.replace("depth=5", "depth=2"), 2),
    "a transformer, after some blocks": ("vit_tiny_patch16_224", f"{SMALL_VIT}, out_indices=(0, 3)", 2),
    "a transformer without a class token": (
        "vit_tiny_patch16_224",
        f"{SMALL_VIT}, class_token=False, global_pool='avg', no_embed_class=True",
        4,
    ),
}


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch, tmp_path):
    """Caches are empty, and every connection is an error."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))

    def refuse(*_args, **_named):
        raise AssertionError("something is to be downloaded")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_it_is_timms_own_network():
    torch.manual_seed(0)
    theirs = timm.create_model("resnet10t", num_classes=7, in_chans=1).eval()
    ours = find_timm("resnet10t(num_classes=7)").made((1, 32, 32), pretrained=False).net
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("case", CUT)
def test_it_is_cut_at_its_stages_and_computes_the_same_features(case):
    name, arguments, n_exits = CUT[case]
    shape = (3, 64, 64) if "img_size=64" in arguments else SHAPE
    found = find_timm(f"{name}+exits(num_classes=6{', ' if arguments else ''}{arguments})")
    net = found.made(shape, pretrained=False).net
    assert isinstance(net, MultiExitNet) and net.n_exits == n_exits and not net.training
    x = torch.rand(2, *shape)
    with torch.no_grad():
        logits = net(x)
        assert logits.shape == (n_exits, 2, 6)
        assert relative_difference(net.search_model()(x), logits) < 1e-4
    costs = measure_costs(net, shape).mmacs
    assert list(costs) == sorted(set(costs))
    whole = find_timm(f"{name}(num_classes=6{', ' if arguments else ''}{arguments})") if "out_indices" not in arguments else None
    if whole is not None and name != "efficientnet_b0":
        last = measure_costs_of(whole, shape)
        assert costs[-1] <= 1.3 * last + 1


def measure_costs_of(found, shape):
    from exitbench.models.cost import count_mmacs

    return count_mmacs(found.made(shape, pretrained=False).net, shape)


def test_a_transformer_that_is_cut_is_the_transformer():
    reference = f"vit_tiny_patch16_224({SMALL_VIT}, num_classes=6)"
    cut = find_timm(reference.replace("224(", "224+exits(")).made(SHAPE, pretrained=False).net
    whole = find_timm(reference).made(SHAPE, pretrained=False).net
    state = {name: value for name, value in whole.state_dict().items() if not name.startswith(("norm.", "head."))}
    blocks = [block for stage in cut.stages for block in stage if type(block).__name__ == "Block"]
    for i, block in enumerate(blocks):
        block.load_state_dict({key.removeprefix(f"blocks.{i}."): v for key, v in state.items() if key.startswith(f"blocks.{i}.")})
    first = cut.stages[0][0].net
    first.load_state_dict({key: value for key, value in state.items() if not key.startswith("blocks.")}, strict=True)
    head = cut.heads[-1]
    head.norm.load_state_dict(whole.norm.state_dict())
    head.norm.eps = whole.norm.eps
    head.linear.load_state_dict(whole.head.state_dict())
    x = torch.rand(2, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(cut(x)[-1], whole(x))


def cache(tmp_path, name, net, *, by="hub"):
    """Put a network's weights where timm keeps what it has downloaded."""
    if by == "torch":
        url = timm.models.get_pretrained_cfg(name).url
        path = tmp_path / "torch" / "checkpoints" / url.rpartition("/")[2]
        path.parent.mkdir(parents=True)
        torch.save(net.state_dict(), path)
        return path
    config = timm.models.get_pretrained_cfg(name)
    folder = tmp_path / "hub" / f"models--timm--{config.architecture}.{config.tag}"
    path = folder / "snapshots" / "abc" / "model.safetensors"
    path.parent.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("by", ["hub", "torch"])
def test_weights_in_timms_cache_are_used(tmp_path, by):
    torch.manual_seed(9)
    trained = timm.create_model("resnet10t").eval()
    path = cache(tmp_path, "resnet10t", trained, by=by)
    found = find_timm("resnet10t").made(SHAPE, pretrained=True)
    x = torch.rand(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(found.net(x), trained(x))
    assert found.note is None and f"{path.name} of timm's cache, SHA-256" in found.source
    other = find_timm("resnet10t(num_classes=10)").made(SHAPE, pretrained=True)
    assert torch.equal(other.net.layer1[0].conv1.weight, trained.layer1[0].conv1.weight)
    assert "the classifier" in other.note and "are for 1000 classes" in other.note
    cut = find_timm("resnet10t+exits(num_classes=10)").made(SHAPE, pretrained=True)
    assert any(torch.equal(value, trained.layer1[0].conv1.weight) for value in cut.net.state_dict().values())
    assert "the heads of timm:resnet10t+exits(num_classes=10) are random" in cut.note


def test_a_damaged_or_harmful_file_in_the_cache_is_an_error(tmp_path):
    path = cache(tmp_path, "resnet10t", timm.create_model("resnet10t"), by="torch")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be read"):
        find_timm("resnet10t").made(SHAPE, pretrained=True)

    class Harmful:
        def __reduce__(self):
            return (tmp_path / "touched").touch, ()

    torch.save({"state_dict": Harmful()}, path)
    with pytest.raises(InputError, match="nothing in a checkpoint is executed"):
        find_timm("resnet10t").made(SHAPE, pretrained=True)
    assert not (tmp_path / "touched").exists()


def test_without_weights_it_says_so_and_is_the_same_every_time():
    one, other = (find_timm("resnet10t(num_classes=10)").made(SHAPE, pretrained=True) for _ in range(2))
    assert "are random: timm's cache has none, and nothing is downloaded" in one.note
    assert all(torch.equal(a, b) for a, b in zip(one.net.state_dict().values(), other.net.state_dict().values(), strict=True))


def test_it_can_be_trained():
    net = timm_network("timm:resnet10t+exits(num_classes=3)", SHAPE).train()
    loss = net(torch.rand(2, *SHAPE)).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18x", "has no network 'resnet18x'.*did you mean 'resnet18'"),
        ("hf-hub:timm/resnet18.a1_in1k", "has no network"),
        ("resnet18(10)", r"takes arguments by name, such as timm:resnet18\(num_classes=10\)"),
        ("resnet18(checkpoint_path='x.pt')", "takes no checkpoint_path: weights are given with --weights"),
        ("resnet18+exits(features_only=True)", r"stages as timm:NAME\+exits"),
        ("resnet18(pretrained=True)", "takes no pretrained"),
        ("resnet18(num_classes=open('x'))", "is no value that a factory can be given"),
        ("", "has no network"),
    ],
)
def test_names_and_arguments_that_it_does_not_know_are_refused(name, message):
    with pytest.raises(ForeignModelError, match=message):
        find_timm(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet10t.no_such_tag", "timm cannot make timm:resnet10t.no_such_tag"),
        ("resnet10t(no_such=3)", "unexpected keyword argument"),
        ("mixer_s32_224+exits(img_size=32)", "cannot be cut at its feature stages"),
        ("vit_tiny_patch16_224+exits(depth=2, embed_dim=24, num_heads=2, out_indices=(1, 0))", "do not rise within the 2 blocks"),
        ("vit_tiny_patch16_224+exits(depth=2, embed_dim=24, num_heads=2, out_indices=(2,))", "do not rise within the 2 blocks"),
    ],
)
def test_what_timm_cannot_make_is_said(name, message):
    with pytest.raises(ForeignModelError, match=message):
        find_timm(name).made(SHAPE, pretrained=False)


def test_without_the_package_the_command_to_install_it_is_told(monkeypatch):
    monkeypatch.setattr(adapter.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ForeignModelError, match=r"pip install timm"):
        find_timm("resnet18")


def test_a_package_that_cannot_be_imported_is_named(monkeypatch):
    def broken(name):
        raise builtins.ImportError("no torchvision here")

    monkeypatch.setattr(adapter.importlib, "import_module", broken)
    with pytest.raises(ForeignModelError, match=r"timm cannot be imported \(ImportError: no torchvision here\)"):
        find_timm("resnet18")
