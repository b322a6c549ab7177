"""The named recipes: those of the paper, and fast ones for a machine without a GPU.

The paper's recipes are those of "Triple Wins" (ICLR 2020), appendix: SGD without Nesterov momentum, the clean and the
attacked half in separate forward passes, PGD-10 of 2/255 on CIFAR-10 and PGD-40 of 0.01 on MNIST. Iterations are rounded up
to epochs of our training split, which has 2,000 images fewer. The paper's learning-rate schedule on MNIST is not known; that
of CIFAR-10 is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from exitbench.attacks.regions import ThreatModel
from exitbench.models.errors import InvalidValue, UnknownName
from exitbench.training.certified import Certified
from exitbench.training.distillation import Distillation
from exitbench.training.recipe import Against, Crafting, Phase, Pruning, Recipe

_DIGITS = ThreatModel("Linf", 0.2)
_MNIST = ThreatModel("Linf", 0.3)
_CIFAR = ThreatModel("Linf", 8 / 255)
_TRAINING_IMAGES = {"cifar10": 48_000, "mnist": 58_000}


def _digits(model: str, *, peak_lr: float) -> Recipe:
    pgd = Crafting("average", steps=4, step=0.4, start=1.0, bounded=True)
    return Recipe(model, "digits", "average", _DIGITS, (Phase(40, pgd),), 64, peak_lr)


def _paper() -> Iterator[Recipe]:
    """Yield the paper's four defences of its three networks; on a network with one exit all attacks are the same."""
    yield from _paper_defences("resnet38", "cifar10", lr=0.1, iterations=64_000)
    yield from _paper_defences("mobilenetv2", "cifar10", lr=0.05, iterations=82_000)
    yield from _paper_defences("smallcnn", "mnist", lr=0.033, iterations=13_100)


def _paper_defences(model: str, dataset: str, *, lr: float, iterations: int) -> Iterator[Recipe]:
    on_mnist = dataset == "mnist"
    steps, step = (40, 1 / 30) if on_mnist else (10, 1 / 4)
    batch_size = 256 if on_mnist else 128
    epochs = math.ceil(iterations * batch_size / _TRAINING_IMAGES[dataset])
    standard = Recipe(
        model,
        dataset,
        "standard",
        _MNIST if on_mnist else _CIFAR,
        (Phase(epochs),),
        batch_size,
        lr,
        schedule="steps",
        weight_decay=5e-4 if on_mnist else 1e-4,
        nesterov=False,
        crop_padding=0 if on_mnist else 4,
        flip=not on_mnist,
    )

    def defended(name: str, against: Against) -> Recipe:
        crafting = Crafting(against, steps, step, start=1.0, bounded=True)
        return replace(standard, model=name, training=against, phases=(Phase(epochs, crafting),))

    yield standard
    yield defended(model, "main")
    yield replace(standard, model=f"rdi_{model}")
    yield defended(f"rdi_{model}", "main")
    yield defended(f"rdi_{model}", "average")
    yield defended(f"rdi_{model}", "max_average")


def _fast_mnist(model: str, training: str, *, against: Against = "sampled") -> Recipe:
    """Return a recipe of one clean epoch, four with 2-step and two with 7-step adversarial training."""
    early = Crafting(against, steps=2, step=0.6, start=1.0, bounded=True)
    finish = Crafting(against, steps=7, step=0.25, start=1.0, bounded=True)
    phases = (Phase(1), Phase(4, early, attacked_share=0.8), Phase(2, finish, attacked_share=0.9))
    return Recipe(model, "mnist", training, _MNIST, phases, 128, 0.05)


def _fast_cifar(
    model: str,
    training: str,
    *,
    peak_lr: float,
    against: Against = "sampled",
    epochs: tuple[int, int, int] = (6, 8, 6),
) -> Recipe:
    """Return a recipe of single-step adversarial training on growing images: shape and colour are learnt at a low cost first.

    Args:
        epochs: Numbers of epochs on images of 16, 24 and 32 pixels.
    """
    sizes = (16, 24, None)
    phases = tuple(Phase(n, Crafting(against), 0.75, size) for n, size in zip(epochs, sizes, strict=True))
    return Recipe(model, "cifar10", training, _CIFAR, phases, 128, peak_lr, crop_padding=3, flip=True)


def _clean_cifar(model: str, *, peak_lr: float) -> Recipe:
    """Return a recipe of clean training on growing images, the baseline of robust training."""
    phases = (Phase(4, image_size=16), Phase(4, image_size=24), Phase(4))
    return Recipe(model, "cifar10", "standard_fast", _CIFAR, phases, 128, peak_lr, crop_padding=3, flip=True)


def _distilled_cifar(model: str, training: str, distillation: Distillation, *, peak_lr: float) -> Recipe:
    """Return the short fast recipe with every image both clean and attacked, and distillation between the exits."""
    fast = _fast_cifar(model, training, peak_lr=peak_lr, epochs=_SHORT)
    phases = tuple(replace(phase, attacked_share=None, distillation=distillation) for phase in fast.phases)
    return replace(fast, phases=phases)


def _certified_mnist(model: str, training: str, certified: Certified) -> Recipe:
    """Return a recipe of 100 epochs on bounds with Adam, as Gowal et al. (2018, appendix A)."""
    phases = (Phase(100, certified=certified),)
    return Recipe(
        model, "mnist", training, _MNIST, phases, 256, 1e-3, schedule="plateau", optimizer="adam", weight_decay=0.0, clip=10.0
    )


def _certified_short(model: str, training: str, certified: Certified) -> Recipe:
    """Return a recipe for CPUs: a tenth of the epochs in batches of a quarter, which are two fifths of the updates.

    Adam's rate shrinks with the root of the batch size. The thresholds are those of docs/examples/choose_certified_rule.py.
    """
    return replace(
        _certified_mnist(model, training, certified), phases=(Phase(10, certified=certified),), batch_size=64, peak_lr=5e-4
    )


def _agreeing_cifar(model: str) -> Recipe:
    """Return a recipe of three more epochs from ``max_average_fast``, at a fifth of its rate, in which exits learn to agree.

    It was the best of the variants in docs/training.md, by less than their error.
    """
    before = _fast_cifar(model, "max_average_fast", peak_lr=0.1)
    return replace(
        before,
        training="policy_fast",
        phases=(replace(before.phases[-1], epochs=3, agreement=2.0),),
        peak_lr=before.peak_lr / 5,
        after=before.training,
    )


def _gates_cifar(model: str, of: str) -> Recipe:
    """Return a recipe that adds gates to ``max_average_fast`` of the network ``of``: two epochs on clean and attacked images."""
    before = _fast_cifar(of, "max_average_fast", peak_lr=0.1)
    phases = (replace(before.phases[-1], epochs=2, attacked_share=0.5),)
    return replace(
        before,
        model=model,
        training="gates_fast",
        phases=phases,
        peak_lr=0.01,
        optimizer="adam",
        weight_decay=0.0,
        after=f"{of}:{before.training}",
        trained="gates",
        rule="gate@equal",
    )


def _pruned_cifar(model: str, training: str, sparsity: float) -> Recipe:
    """Return a recipe of five more epochs from ``pgd_fast``, at a tenth of its rate: three to prune, two to fine-tune."""
    dense = _fast_cifar(model, "pgd_fast", peak_lr=0.2, against="main")
    return replace(
        dense,
        training=training,
        phases=(replace(dense.phases[-1], epochs=5),),
        peak_lr=dense.peak_lr / 10,
        after=dense.training,
        pruning=Pruning(sparsity, epochs=3),
    )


# ResNet-38 costs 83.28 mmacs, 82.84 of them in layers that are pruned (all but its first convolution and its classifier).
# The sparsity is the saving as a share of these 82.84.
_AS_RDI = 0.2125
"""(83.28 - 65.68) / 82.84; 65.68 is the mean cost of RDI-ResNet38's seven exits, its cost if all take the same share."""
_HALF = 0.5027
"""83.28 / 2 / 82.84: half the cost of the dense network."""

_SHORT = (4, 3, 2)
"""Epochs of MobileNetV2 and MSDNet, whose updates take four times and twice as long as those of ResNet-38 on a CPU."""

_NEO_KD = Distillation("neo_kd", weight=3.0, orthogonal=1.0, later=1.5)
"""Three times as much weight on neighbours as on orthogonal targets, and one and a half times on the later half of the exits."""

_ALL = (
    _digits("rdi_smallcnn", peak_lr=0.02),
    _digits("rdi_resnet38", peak_lr=0.02),
    _digits("resnet38", peak_lr=0.1),
    *_paper(),
    _fast_mnist("rdi_smallcnn", "max_average_fast"),
    _fast_mnist("smallcnn", "pgd_fast", against="main"),
    Recipe("rdi_smallcnn", "mnist", "standard_fast", _MNIST, (Phase(5),), 128, 0.05),
    Recipe("smallcnn", "mnist", "standard_fast", _MNIST, (Phase(5),), 128, 0.05),
    *(
        _certified_mnist(model, training, certified)
        for model in ("rdi_smallcnn", "smallcnn")
        for training, certified in (("ibp", Certified()), ("crown_ibp", Certified("crown_ibp")))
    ),
    _certified_mnist("rdi_smallcnn", "certified_rule", Certified(gate=2.0)),
    replace(_certified_short("rdi_smallcnn", "certified_rule_fast", Certified(gate=2.0)), rule="margin:0.98,0.8"),
    _fast_cifar("rdi_resnet38", "max_average_fast", peak_lr=0.1),
    _agreeing_cifar("rdi_resnet38"),
    _gates_cifar("rdi_resnet38_gated", "rdi_resnet38"),
    _clean_cifar("rdi_resnet38", peak_lr=0.1),
    _fast_cifar("resnet38", "pgd_fast", peak_lr=0.2, against="main"),
    _pruned_cifar("resnet38", "pruned_fast", _AS_RDI),
    _pruned_cifar("resnet38", "pruned50_fast", _HALF),
    _fast_cifar("resnet38_075", "pgd_fast", peak_lr=0.2, against="main"),
    _fast_cifar("rdi_mobilenetv2", "max_average_fast", peak_lr=0.1, epochs=_SHORT),
    _fast_cifar("mobilenetv2", "pgd_fast", peak_lr=0.2, against="main", epochs=_SHORT),
    replace(_fast_cifar("msdnet", "max_average_fast", peak_lr=0.1, epochs=_SHORT), rule="ensemble@mmacs=30.7"),
    replace(_distilled_cifar("msdnet", "neo_kd_fast", _NEO_KD, peak_lr=0.1), rule="confidence@mmacs=30.8"),
    _distilled_cifar("msdnet", "skd_fast", Distillation("skd"), peak_lr=0.1),
    _distilled_cifar("msdnet", "ard_fast", Distillation("ard"), peak_lr=0.1),
    # Its internal classifiers see features that nothing normalises; twice this rate was tried, at three times they explode.
    replace(
        _fast_cifar("sdn_resnet56", "max_average_fast", peak_lr=0.1, epochs=_SHORT), scales_to=2.0, rule="ensemble@mmacs=77.7"
    ),
    replace(_clean_cifar("sdn_resnet56", peak_lr=0.1), training="sdn_fast", exit_weights="sdn"),
    replace(_fast_mnist("branchynet_lenet", "max_average_fast"), rule="vote@mmacs=0.84"),
    Recipe("branchynet_lenet", "mnist", "standard_fast", _MNIST, (Phase(5),), 128, 0.05),
)
_RECIPES = {recipe.name: recipe for recipe in _ALL}


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    return list(_RECIPES)


def named_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        UnknownName: If there is no such recipe; the message suggests names.
    """
    if name not in _RECIPES:
        raise UnknownName("recipe", name, _RECIPES)
    return _RECIPES[name]


def shortened(recipe: Recipe, epochs: int) -> Recipe:
    """Return ``recipe`` with its phases scaled to ``epochs`` in total, at least one each.

    Raises:
        InvalidValue: If there are fewer epochs than phases.
    """
    n_phases = len(recipe.phases)
    if epochs < n_phases:
        raise InvalidValue(f"{recipe.name} has {n_phases} phases; it needs at least as many epochs, got {epochs}")
    phases = []
    start = end = 0
    for number, phase in enumerate(recipe.phases, start=1):
        end += phase.epochs
        left = n_phases - number
        length = min(max(round(epochs * end / recipe.epochs) - start, 1), epochs - start - left)
        phases.append(replace(phase, epochs=length))
        start += length
    pruning = recipe.pruning
    if pruning and pruning.epochs:
        pruning = replace(pruning, epochs=max(1, round(epochs * pruning.epochs / recipe.epochs)))
    return replace(recipe, phases=tuple(phases), pruning=pruning)
