"""The cache never returns another network's results: variants of a network, each with results of its own."""

from __future__ import annotations

import json
import textwrap

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exitbench.runner.prepare import Request, prepare
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store

RUN = ["--dataset", "digits", "--n", "8", "--steps", "2", "--policy", "exit:1", "--attack", "single:1"]

ROLLED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, roll):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.roll = roll

    def forward(self, x):
        return self.layer(x.flatten(1)).roll(self.roll, -1)

def made(roll):
    torch.manual_seed(0)
    return Net(roll)

def plain():
    return made(0)

def rolled():
    return made(1)
"""

FROM_A_FILE = """
import json
from pathlib import Path
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        read = json.loads((Path(__file__).parent / "stats.json").read_text())
        self.mean, self.std = torch.tensor(read["mean"]), torch.tensor(read["std"])
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(((x - self.mean) / self.std).flatten(1))

def make():
    torch.manual_seed(0)
    return Net()
"""

READ_AT_EVERY_CALL = """
from pathlib import Path
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        factor = float((Path(__file__).parent / "factor.txt").read_text())
        return self.layer(x.flatten(1)) * factor

def make():
    torch.manual_seed(0)
    return Net()
"""


def test_two_factories_of_one_file_do_not_share_results(bench, tmp_path):
    (tmp_path / "net.py").write_text(ROLLED)
    for name in ("plain", "rolled"):
        code, _, err = bench("run", "--model", f"net.py:{name}", *RUN)
        assert code == 0 and "0 done before" in err, err
    code, _, err = bench("run", "--model", "net.py:plain", *RUN)
    assert code == 0 and "nothing left to do" in err, err


def test_a_network_that_read_another_file_does_not_share_results(bench, tmp_path):
    (tmp_path / "net.py").write_text(FROM_A_FILE)
    for mean in (0.1, 0.5):
        (tmp_path / "stats.json").write_text(json.dumps({"mean": mean, "std": 0.3}))
        code, _, err = bench("run", "--model", "net.py:make", *RUN)
        assert code == 0 and "0 done before" in err, err


def test_what_code_and_weights_do_not_tell_is_noticed_by_what_is_computed(bench, tmp_path):
    (tmp_path / "net.py").write_text(READ_AT_EVERY_CALL)
    said = {}
    for text in ("1", "-1", "1", "-1"):
        (tmp_path / "factor.txt").write_text(text)
        code, _, err = bench("run", "--model", "net.py:make", *RUN)
        assert code == 0, err
        said.setdefault(text, []).append(err)
    assert "0 done before" in said["1"][0] and "computes something else" not in said["1"][0]
    assert "0 done before" in said["-1"][0] and "the network computes something else than when" in said["-1"][0]
    assert all("nothing left to do" in again[1] for again in said.values()), "each finds its own results again"
    store = Store(tmp_path / "results" / "store")
    found = evaluations(store)
    assert len({each.record.weights for each in found}) == len(found) == 2
    one, other = (store.read(each.record.attacks[0].keys[0]).logits for each in found)
    assert np.array_equal(one, -other) and not np.array_equal(one, other)
    code, out, err = bench("verify", "results", "--model", "net.py:make")
    assert code == 1 and " verified: 8 counterexamples" in out and "NOT VERIFIED" in out, "one computes that now"


SOURCE = """
import functools
import torch
from torch import nn

{top}

class Inner:
    def __init__(self, shift):
        self.shift = shift

class Net(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        {init}

    def forward(self, x):
        value = {read}
        return self.layer(x.flatten(1)).roll(int(value), -1)

def made(value):
    torch.manual_seed(0)
    net = Net(value)
    {after}
    return net

def make():
    import os
    return made(int(os.environ["ROLL"]))
"""

PLACES = {
    "a number": ("", "self.v = value", "self.v", ""),
    "a tensor that is no buffer": ("", "self.v = torch.tensor(float(value))", "self.v", ""),
    "a dictionary in a list": ("", 'self.v = [{"a": (value,)}]', 'self.v[0]["a"][0]', ""),
    "an object": ("", "self.v = Inner(value)", "self.v.shift", ""),
    "a set": ("", "self.v = {value, 'x'}", "[v for v in self.v if v != 'x'][0]", ""),
    "a closure": ("", "self.v = lambda: value", "self.v()", ""),
    "a default": ("", "self.v = lambda v=value: v", "self.v()", ""),
    "a partial": ("", "self.v = functools.partial(int, value)", "self.v()", ""),
    "a method of an object": ("", "self.v = Inner(value).__getattribute__", "self.v('shift')", ""),
    "a global": ("VALUE = 0", "globals()['VALUE'] = value", "VALUE", ""),
    "a global of a function": ("VALUE = 0\ndef read():\n    return VALUE", "globals()['VALUE'] = value", "read()", ""),
    "an attribute of a class": ("", "Net.v = value", "Net.v", ""),
    "a network in a list": ("", "self.v = [nn.Linear(1, 1)]; self.v[0].bias.data.fill_(value)", "self.v[0].bias[0]", ""),
    "a hook": ("", "self.v = 0", "0", "net.register_forward_hook(lambda m, i, o: o.roll(value, -1))"),
    "another forward": ("", "self.v = 0", "0", "net.forward = lambda x: Net.forward(net, x).roll(value, -1)"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("variants")


@given(place=st.sampled_from(sorted(PLACES)), values=st.lists(st.integers(0, 9), min_size=2, max_size=2, unique=True))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_a_value_stands_it_tells_two_networks_apart(place, values, folder):
    import os

    top, init, read, after = PLACES[place]
    (folder / "net.py").write_text(SOURCE.format(top=top, init=init, read=read, after=after))
    found = []
    for value in (*values, values[0]):
        os.environ["ROLL"] = str(value)
        request = Request(f"{folder}/net.py:make", folder, dataset="digits", n=4, policy="exit:1")
        found.append(prepare(request).target.weights)
    assert found[0] != found[1], "two functions under one digest"
    assert found[0] == found[2], "one function under two digests"


def test_a_digest_is_the_same_in_every_process(tmp_path):
    """With another seed of Python's hashes, which sets are ordered by."""
    import os
    import subprocess
    import sys

    top, init, read, after = PLACES["a set"]
    init += "; self.w = lambda x: x in {'a', 'b', 'c'}; self.log = __import__('logging').getLogger('x')"
    (tmp_path / "net.py").write_text(SOURCE.format(top=top, init=init, read=read, after=after))
    code = f"""
        from pathlib import Path
        from exitbench.runner.prepare import Request, prepare
        request = Request({str(tmp_path / "net.py:make")!r}, Path("."), dataset="digits", n=4, policy="exit:1")
        print(prepare(request).target.weights, list({{'a', 'b', 'c'}}))
    """
    found = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "ROLL": "1"}
        command = [sys.executable, "-c", textwrap.dedent(code)]
        found.append(
            subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split(maxsplit=1)
        )
    (one, order), (other, another) = found
    assert one == other and order != another


ATTACK = """
from dataclasses import dataclass
from exitbench.attacks.base import Attack
import {package}.steps as steps

@dataclass(frozen=True)
class Mine(Attack):
    strength: float = 1.0

    def generate(self, model, x, y, *, noise, candidates):
        return steps.step(x)
"""


@pytest.mark.parametrize("step", ["return x + 0.1", "return x - 0.1", "return x\n\nUNUSED = 1"])
def test_an_attack_of_a_package_has_other_results_once_its_code_is_another(step, tmp_path, monkeypatch):
    from importlib import import_module

    from exitbench.store.cell import cell_key

    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for package, body in (("pack_a", "return x"), ("pack_b", step)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
        (tmp_path / package / "steps.py").write_text(f"def step(x):\n    {body}\n")
        (tmp_path / package / "attack.py").write_text(ATTACK.format(package="pack"))
        (tmp_path / package).rename(tmp_path / "pack")
        attack = import_module("pack.attack").Mine()
        keys.append([cell_key("0" * 64, ["a"], attack, 0) for _ in range(2)])
        (tmp_path / "pack").rename(tmp_path / package)
        for name in ("pack", "pack.steps", "pack.attack"):
            monkeypatch.delitem(__import__("sys").modules, name)
    assert keys[0][0] == keys[0][1] != keys[1][0]


def test_an_attack_typed_at_a_prompt_is_told_by_its_code():
    from exitbench.models.value_identity import class_digest

    found = []
    for number in (1, 2, 1):
        names = {"__name__": "typed_at_a_prompt"}
        exec(f"def helper(x):\n    return x + {number}\nclass Mine:\n    def go(self, x):\n        return helper(x)", names)  # noqa: S102
        found.append(class_digest(names["Mine"]))
    assert found[0] != found[1] and found[0] == found[2]


def _fingerprint(value):
    from exitbench.models.fingerprint import Fingerprint

    values = np.stack([np.linspace(0, 1, 30, dtype=np.float32).reshape(6, 5)] * 2) * np.float32(value)
    return Fingerprint((2, 6, 5), values.tobytes())


@given(change=st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_rounding_is_the_same_function_and_anything_more_is_another(change):
    from exitbench.models.fingerprint import ROUNDING

    one, other = _fingerprint(1.0), _fingerprint(1.0 + change)
    assert other.agrees(one) == (other.difference(one) <= ROUNDING)
    assert other.difference(one) == pytest.approx(abs(change), abs=1e-6)


def test_generations_keep_apart_what_one_digest_computed(tmp_path):
    from exitbench.store.generations import Generations

    known = Generations(Store(tmp_path).root)
    first = known.settle("a" * 64, _fingerprint(1.0), unknown=False)
    second = known.settle("a" * 64, _fingerprint(2.0), unknown=False)
    assert first.weights == "a" * 64 and first.note is None
    assert second.weights != first.weights and second.note
    assert known.settle("a" * 64, _fingerprint(2.0 + 1e-6), unknown=False).weights == second.weights, "other rounding"
    assert known.settle("a" * 64, _fingerprint(1.0), unknown=False) == first
    assert known.settle("b" * 64, _fingerprint(1.0), unknown=True).note, "results of unknown origin are not reused"
    assert known.file_of(second.weights) == known.path("a" * 64)
    known.path("a" * 64).write_text("{}")
    assert known.read("a" * 64) == [] and not known.path("a" * 64).exists(), "a damaged one is set aside"


def test_stores_in_which_one_digest_was_two_functions_are_not_mixed(bench, tmp_path):
    (tmp_path / "net.py").write_text(READ_AT_EVERY_CALL)
    for text, folder in (("1", "a"), ("-1", "b")):
        (tmp_path / "factor.txt").write_text(text)
        assert bench("run", "--model", "net.py:make", *RUN, "--results", folder)[0] == 0
    code, out, err = bench("merge", "a", "b", "--results", "c")
    assert code == 1 and "CONFLICT network" in err, (out, err)
    (found,) = evaluations(Store(tmp_path / "c" / "store"))
    (kept,) = evaluations(Store(tmp_path / "a" / "store"))
    assert found.record == kept.record and found.clean.correct.tolist() == kept.clean.correct.tolist()
    (tmp_path / "factor.txt").write_text("1")
    code, _, err = bench("run", "--model", "net.py:make", *RUN, "--results", "c")
    assert code == 0 and "nothing left to do" in err, "the merged store knows what its results are of"
