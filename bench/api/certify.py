"""``exitbench.certify``: bounds from below what any attack leaves of a network, under its deployed exit rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from exitbench.api.inputs import attack_names, dataset_named, network_given
from exitbench.bounds.certify import METHODS, Method, Proven, proven
from exitbench.bounds.network import Network
from exitbench.bounds.rules import understood
from exitbench.bounds.trace import ensure_same, traced
from exitbench.errors import UserError
from exitbench.models.policy_text import policy_text
from exitbench.models.spec import digest
from exitbench.models.user_code import contained
from exitbench.models.user_folders import data_folder
from exitbench.runner.prepare import Prepared, Request, prepare
from exitbench.store import certificate as stored
from exitbench.store.cell import SLICE
from exitbench.store.certificate import Certificate
from exitbench.store.store import Store

DEFAULT_METHODS: tuple[Method, ...] = ("ibp", "crown_ibp")


@contained()
def certify(
    model: str | nn.Module,
    *,
    dataset: Any = "auto",
    policy: str | None = None,
    n: int | None = None,
    eps: float | None = None,
    training: str | None = None,
    weights: str | Path | None = None,
    calibration: Any = None,
    results: str | Path | None = None,
    data: str | Path | None = None,
    name: str | None = None,
    device: str = "auto",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    methods: str | Iterable[str] = DEFAULT_METHODS,
    neurons: int = 256,
) -> Certificate:
    """Prove for which samples no image of the Linf ball is classified wrongly, and how much the ball can be made to cost.

    What is proven holds for the plain fp32 network and its rule, whatever the attack: ``accuracy()`` of the result is at most
    the robust accuracy of ``evaluate`` with the same arguments, and ``cost()`` at least the mean mmacs under any attack.

    Args:
        model: The network, as for ``evaluate``.
        dataset: The images, as for ``evaluate``.
        policy: The exit policy, as for ``evaluate``.
        n: Number of samples, as for ``evaluate``.
        eps: Radius of the Linf ball, for pixels in [0, 1], as for ``evaluate``.
        training: Name of the registered weights.
        weights: A file of tensors in place of registered weights.
        calibration: Held-out training images, to set thresholds for images in memory.
        results: Folder of results, in which the certificate is kept and shown by reports; None to keep nothing.
        data: Folder of the datasets; None for ``EXITBENCH_DATA`` or its default.
        name: Name of a module in memory in reports.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        mean: One number per channel, to normalise images with, as for ``evaluate``.
        std: The standard deviations that go with ``mean``.
        methods: Kinds of bounds, cheapest first, as a sequence or separated by commas: ``ibp``, ``crown_ibp``, ``crown``. Each
            is tried on what those before it left open.
        neurons: Size of the layers whose inputs ``crown`` bounds by backward substitution; larger ones have interval bounds.

    Raises:
        UserError: If an argument cannot be used, or the network has a layer without bounds; the message names it.
    """
    network, device = network_given(model, name, device)
    samples = dataset_named(dataset, calibration, network, n)
    request = Request(
        model=model if isinstance(model, str) else network.name,
        data=data_folder() if data is None else Path(data),
        dataset=samples.name,
        training=training,
        weights=None if weights is None else Path(weights),
        policy=policy,
        n=samples.n,
        eps=eps,
        device=device,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
    )
    prepared = prepare(request, network)
    found = certificate_of(prepared, method_names(methods), neurons)
    if results is not None:
        Store(Path(results) / "store").write_certificate(found)
    return found


def method_names(asked: str | Iterable[str]) -> list[Method]:
    """Return the kinds of bounds that are named, in the order of their cost.

    Raises:
        UserError: If there is no such kind, or none is named.
    """
    names = attack_names(asked)
    if unknown := [name for name in names if name not in METHODS]:
        raise UserError(f"no such bounds: {unknown[0]!r}; known: {', '.join(METHODS)}")
    if not names:
        raise UserError(f"name at least one kind of bounds: {', '.join(METHODS)}")
    return [name for name in METHODS if name in names]


def certificate_of(
    prepared: Prepared, methods: Sequence[Method], neurons: int, on_samples: Callable[[int], None] = lambda _: None
) -> Certificate:
    """Prove what can be proven of the samples of an evaluation.

    Args:
        prepared: The resolved request.
        methods: Kinds of bounds, cheapest first.
        neurons: Size of the layers that ``crown`` bounds anew.
        on_samples: Called with the number of samples that are done.

    Raises:
        UserError: If the threat model is not a Linf ball, or the network has a layer without bounds.
    """
    target, split, threat = prepared.target, prepared.split, prepared.settings.region
    if threat.norm != "Linf":
        raise UserError(f"bounds are those of Linf balls; nothing can be certified in {threat.norm}")
    network = traced(target.model, split.shape)
    device = next(target.model.parameters()).device
    ensure_same(network, target.model, split.batch(0, min(8, prepared.n)).x.to(device))
    batches: list[list[Proven]] = []
    for batch in prepared.samples.slices(SLICE):
        batches.append(_batch(prepared, network, batch.x.to(device), batch.y.to(device), methods, neurons))
        on_samples(len(batch.y))
    return Certificate(
        model=target.name,
        training=target.training,
        weights=target.weights,
        dataset=split.dataset,
        data=digest(split.input_hashes(prepared.n)),
        n=prepared.n,
        norm=threat.norm,
        eps=threat.eps,
        policy=policy_text(target.policy),
        calibration=getattr(target.policy, "calibration", None),
        version=stored.VERSION,
        mmacs=tuple(target.costs.mmacs),
        neurons=neurons,
        understood=understood(target.policy),
        methods=tuple(_method([batch[i] for batch in batches]) for i in range(len(methods))),
        torch=str(torch.__version__),
        device="cuda" if device.type == "cuda" else "cpu",
    )


def _batch(
    prepared: Prepared, network: Network, x: torch.Tensor, y: torch.Tensor, methods: Sequence[Method], neurons: int
) -> list[Proven]:
    target, eps = prepared.target, prepared.settings.region.eps
    return proven(network, target.model, target.policy, x, y, eps, methods=methods, neurons=neurons)


def _method(parts: Sequence[Proven]) -> stored.Method:
    right = torch.cat([part.right for part in parts]).nonzero()[:, 0]
    last = torch.cat([part.last for part in parts])
    seconds = round(sum(part.seconds for part in parts), 3)
    return stored.Method(name=parts[0].method, right=tuple(right.tolist()), last=tuple(last.tolist()), seconds=seconds)
