import pickle

import pytest
import torch

from exitbench.models.authors_checkpoint import RELEASED_SHA256, import_checkpoint
from exitbench.models.registry import model_card
from exitbench.models.weights import WeightsError

BLOCK = {"body.0": "conv1", "body.1": "bn1", "body.3": "conv2", "body.4": "bn2"}


def released_name(name: str) -> str:
    """Translate our name of a parameter of RDI-ResNet38 into that of the released code."""
    kind, index, rest = name.split(".", 2)
    if kind == "heads":
        if index == "6":
            return f"module.fc.{rest.removeprefix('2.')}"
        for ours, theirs in BLOCK.items():
            rest = rest.replace(ours, theirs)
        return f"module.branch_layer{int(index) + 1}.{rest}"
    if rest.startswith("stem."):
        return f"module.{'conv1' if rest.startswith('stem.0') else 'bn1'}.{rest[7:]}"
    for ours, theirs in {**BLOCK, "shortcut": "downsample"}.items():
        rest = rest.replace(ours, theirs)
    return "module." + rest.replace("_block", "_layer")


def test_every_parameter_finds_its_place(tmp_path):
    net = model_card("rdi_resnet38").build()
    state = {released_name(name): tensor for name, tensor in net.state_dict().items()}
    torch.save({"iter": 1, "arch": "x", "state_dict": state, "best_prec1": 0}, tmp_path / "c.pth.tar")
    other = model_card("rdi_resnet38").build()
    import_checkpoint(tmp_path / "c.pth.tar", other)
    for name, tensor in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_the_released_file_is_recognised(authors_checkpoint):
    assert import_checkpoint(authors_checkpoint, model_card("rdi_resnet38").build()) == RELEASED_SHA256


def test_another_architecture_is_named(authors_checkpoint):
    with pytest.raises(WeightsError, match="another architecture"):
        import_checkpoint(authors_checkpoint, model_card("rdi_resnet74").build())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_pickle_is_executed(tmp_path):
    witness = tmp_path / "executed"
    with (tmp_path / "bomb.pth.tar").open("wb") as file:
        pickle.dump({"state_dict": Bomb(witness)}, file)
    torch.save({"state_dict": Bomb(witness)}, tmp_path / "bomb2.pth.tar")
    for name in ("bomb.pth.tar", "bomb2.pth.tar"):
        with pytest.raises(WeightsError, match="not a readable torch checkpoint"):
            import_checkpoint(tmp_path / name, model_card("rdi_resnet38").build())
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04broken"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "c.pth.tar").write_bytes(content)
    with pytest.raises(WeightsError, match="not a readable torch checkpoint"):
        import_checkpoint(tmp_path / "c.pth.tar", model_card("rdi_resnet38").build())


def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path):
    torch.save({"weights": 1}, tmp_path / "c.pth.tar")
    with pytest.raises(WeightsError, match="state_dict"):
        import_checkpoint(tmp_path / "c.pth.tar", model_card("rdi_resnet38").build())
