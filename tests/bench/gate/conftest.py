"""The gate end to end: a folder with weights and a baseline, and the command line in a copy of it."""

from __future__ import annotations

import shutil

import pytest

from exitbench.models.policy_text import policy_text
from exitbench.models.weights import WeightsCard, save_weights
from tests.bench.gate.gated import UPDATE, damaged, prepare, run
from tests.bench.trained import trained


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with weights good and worse, and the baseline of the good ones."""
    folder = tmp_path_factory.mktemp("gated")
    net, policy = trained()
    for name in ("tiny_digits", "tiny_2"):
        save_weights(net, folder / "w", WeightsCard(name, "digits", "good", "", "a test", policy_text(policy), "a" * 16))
    save_weights(damaged(), folder / "w", WeightsCard("tiny_digits", "digits", "worse", "", "a test"))
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch, folder)
        assert run(*UPDATE) == 0
    return folder


@pytest.fixture
def bench(made, tmp_path, monkeypatch, capsys):
    """The command line in a copy of that folder: exit code and what was printed."""
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    prepare(monkeypatch, folder)

    def told(*arguments):
        code = run(*arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, " ".join(out.split()), " ".join(err.split())

    return told
