import pytest
import torch

from exitbench.attacks.noise import Noise


def test_every_sample_has_its_own_stream():
    like = torch.zeros(3, 2, 2)
    whole = Noise(5, (10, 11, 12)).uniform(like)
    assert torch.equal(Noise(5, (12, 10)).uniform(like[:2]), whole[[2, 0]])


def test_seed_restart_and_kind_matter():
    like = torch.zeros(1, 50)
    draws = [
        Noise(0, (0,)).uniform(like),
        Noise(1, (0,)).uniform(like),
        Noise(0, (1,)).uniform(like),
        Noise(0, (0,)).uniform(like, restart=1),
    ]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 4
    # The uniform stream must not be the normal one in disguise.
    normal, uniform = Noise(0, (0,)).normal(like), Noise(0, (0,)).uniform(like)
    assert abs(torch.corrcoef(torch.stack([normal[0], uniform[0]]))[0, 1]) < 0.5


def test_noise_for_other_samples_is_refused():
    with pytest.raises(ValueError, match="2 samples"):
        Noise(0, (0, 1)).uniform(torch.zeros(3, 2))
