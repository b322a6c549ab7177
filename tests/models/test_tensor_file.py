"""Weights from torch checkpoints and safetensors files, whatever they are called; nothing in them is executed."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exitbench.models.tensor_file import WeightsError, read_tensors
from exitbench.models.weights import load_weights

NET = nn.Linear(3, 2)
STATE = NET.state_dict()


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in STATE.items()}


WRITTEN = {
    "a state dict": STATE,
    "among other things": {"epoch": 3, "state_dict": STATE},
    "under another name": {"model_state_dict": STATE, "optimizer": {"lr": 0.1}},
    "of a parallel net": prefixed("module."),
    "of a compiled parallel net": prefixed("module._orig_mod."),
}


@pytest.mark.parametrize("case", WRITTEN)
@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints_are_read(case, legacy, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(WRITTEN[case], path, _use_new_zipfile_serialization=not legacy)
    net = nn.Linear(3, 2)
    load_weights(net, path)
    assert torch.equal(net.weight, NET.weight) and torch.equal(net.bias, NET.bias)


def test_safetensors_are_told_by_their_content(tmp_path):
    save_file(STATE, tmp_path / "weights.pt")
    assert torch.equal(read_tensors(tmp_path / "weights.pt")["weight"], NET.weight)
    # A header of 128 bytes begins with the byte that pickles begin with.
    names = (f"{'x' * n}" for n in range(1, 100))
    for name in names:
        save_file({name: torch.ones(1)}, tmp_path / "w")
        if (tmp_path / "w").read_bytes()[0] == 0x80:
            break
    assert list(read_tensors(tmp_path / "w")) == [name]


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("write", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))])
def test_nothing_in_a_file_is_executed(write, tmp_path):
    witness = tmp_path / "executed"
    write({"weight": Bomb(witness)}, tmp_path / "bomb.pt")
    with pytest.raises(WeightsError, match="nothing in a weights file is executed"):
        read_tensors(tmp_path / "bomb.pt")
    assert not witness.exists()


@pytest.mark.parametrize("what", [NET, [1, 2], {}, {"state_dict": {"weight": 3}}])
def test_what_is_no_state_dict_is_refused(what, tmp_path):
    torch.save(what, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"torch.save\(net.state_dict\(\), file\)"):
        read_tensors(tmp_path / "weights.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\x80", b"<html>"])
def test_damaged_files_are_refused(content, tmp_path):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="is not a readable"):
        read_tensors(tmp_path / "weights.pt")
