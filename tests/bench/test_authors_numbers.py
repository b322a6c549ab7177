"""The authors' checkpoint on the original CIFAR-10 pixels: the clean figures, exactly."""

import pytest
import torch

from exitbench.data.load import load_split
from exitbench.models.authors_checkpoint import import_checkpoint
from exitbench.models.policies import EntropyPolicy, deployed_logits
from exitbench.models.registry import model_card
from exitbench.target.calibrate import all_logits

THRESHOLDS = (0.32476, 0.44859, 0.42416, 0.83118, 1.08614, 1.34419)
CLEAN_PER_EXIT = [72.27, 74.83, 80.24, 81.32, 81.71, 85.25, 84.76]
EXITS_TAKEN = [91, 147, 114, 220, 145, 167, 133]
DEPLOYED = 84.37
N = 1017


@pytest.fixture(scope="module")
def scored(cifar10_dir, authors_checkpoint):
    net = model_card("rdi_resnet38").build()
    import_checkpoint(authors_checkpoint, net)
    split = load_split("cifar10", "test", (3, 32, 32), cifar10_dir)
    batch = split.batch(0, N)
    return all_logits(net.eval(), split)[:, :N], batch.y


def test_clean_accuracy_of_every_exit(scored):
    logits, y = scored
    found = (logits.argmax(-1) == y).double().mean(1).mul(100)
    assert found.tolist() == pytest.approx(CLEAN_PER_EXIT, abs=0.005)


def test_the_deployed_rule(scored):
    logits, y = scored
    deployed, taken = deployed_logits(logits, EntropyPolicy(THRESHOLDS))
    assert (deployed.argmax(-1) == y).double().mean().item() * 100 == pytest.approx(DEPLOYED, abs=0.005)
    assert torch.bincount(taken).tolist() == EXITS_TAKEN
