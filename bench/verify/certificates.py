"""Proves stored certificates again with the weights: the same bounds of the same samples, and no word of whoever made them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from exitbench.bounds.certify import METHODS, Proven, proven
from exitbench.bounds.rules import understood
from exitbench.bounds.trace import ensure_same, traced
from exitbench.data.load import load_split
from exitbench.errors import UserError, as_user_errors
from exitbench.models.cost import measure_costs
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.errors import InputError
from exitbench.models.policy_text import parse_policy
from exitbench.models.spec import digest
from exitbench.models.stored import Unreadable
from exitbench.store.cell import SLICE
from exitbench.store.certificate import Certificate, Method, certificate_key, read_certificate
from exitbench.store.identity import Identity
from exitbench.store.inside import read_inside
from exitbench.target.networks import Network, Shape, stored_network
from exitbench.verify.check import Verified
from exitbench.verify.claims import Floats, Ints, Mismatch
from exitbench.verify.evidence import COUNTED
from exitbench.verify.subject import load_subject

SHOWN = 5
"""Samples that a message names."""


def stored_certificates(store: Path, model: str | None = None) -> list[Certificate]:
    """Return the certificates in a store, in the order of their files' names, those of one model if it is named.

    Raises:
        UserError: If one cannot be read, or is not of the evaluation that its name says.
    """
    found = [_read(store, path) for path in sorted((store / "certificates").glob("*.json"))]
    return [each for each in found if model in (None, each.model)]


def certificate_of(store: Path, of: Identity) -> Certificate | None:
    """Return the certificate of an evaluation in a store, or None if there is none; see ``stored_certificates``."""
    path = store / "certificates" / f"{certificate_key(of)}.json"
    return _read(store, path) if path.exists() else None


def _read(store: Path, path: Path) -> Certificate:
    try:
        return read_certificate(read_inside(store, path), path, path.stem)
    except (Unreadable, OSError) as error:
        raise UserError(f"{error}; `exitbench certify` makes it again") from error


def prove_alone(
    certificate: Certificate, data: Path, weights: Path | None, device: str, network: Network | None = None
) -> list[Mismatch]:
    """Return what does not hold of a certificate whose evaluation has no claims beside it; see ``certificate_mismatches``.

    Args:
        certificate: The certificate.
        data: Folder of the datasets.
        weights, device, network: As for ``exitbench.verify.subject.load_subject``.

    Raises:
        UserError: If its weights or its data are not at hand.
    """
    with as_user_errors():
        shape = (network or stored_network(certificate.model)).input_shape(certificate.dataset)
        split = load_split(certificate.dataset, "test", shape, data)
    if certificate.n > len(split):
        raise UserError(f"{split.dataset} ({split.source}) has {len(split)} test samples, the certificate is of {certificate.n}")
    model, digest_found = load_subject(certificate, shape, weights, device, network)
    if digest_found != certificate.weights:
        raise UserError(f"it is of weights with the SHA-256 {certificate.weights[:16]}..., found are {digest_found[:16]}...")
    if digest(split.input_hashes(certificate.n)) != certificate.data:
        return [Mismatch("data", f"the certificate is of other samples than the first {certificate.n} of {split.dataset} test")]
    batch = split.batch(0, certificate.n)
    return certificate_mismatches(certificate, model, batch.x.numpy(), batch.y.numpy())


def proofs_of(verified: Verified, model: EarlyExitNet, *, prove: bool = True) -> list[Mismatch]:
    """Return what does not hold of the stored certificate of verified claims; nothing where there is none.

    Args:
        verified: The claims, and which samples no counterexample breaks.
        model: The plain fp32 network, in evaluation mode.
        prove: Whether to prove it again; without, it is compared with the counterexamples alone.

    Raises:
        UserError: If it cannot be read.
    """
    claims = verified.claims
    certificate = None if claims.store is None else certificate_of(claims.store, claims.subject)
    if certificate is None:
        return []
    broken = [i for i in certificate.proven.right if not verified.robust[i]]
    what = f"certified, but broken by a counterexample or wrong when clean: {_samples(broken)}"
    found = [Mismatch("certificate", what)] if broken else []
    return found + (certificate_mismatches(certificate, model, claims.clean_images, claims.labels) if prove else [])


def certificate_mismatches(certificate: Certificate, model: EarlyExitNet, images: Floats, labels: Ints) -> list[Mismatch]:
    """Return what a certificate claims and the bounds of its own kind do not prove.

    Args:
        certificate: The certificate.
        model: The plain fp32 network, in evaluation mode.
        images: Clean images ``(n, C, H, W)`` of all samples.
        labels: Labels ``(n,)``.
    """
    names = [method.name for method in certificate.methods]
    if names != [kind for kind in METHODS if kind in names]:
        what = f"its bounds are {', '.join(names)}, those known are {', '.join(METHODS)}, in this order"
        return [Mismatch("certificate", what)]
    if certificate.norm != "Linf":
        return [Mismatch("certificate", f"nothing can be certified in {certificate.norm}")]
    try:
        found = _proven_again(certificate, model, images, labels)
    except (UserError, InputError) as error:
        return [Mismatch("certificate", f"it cannot be proven: {error}")]
    told = list(_of_network(certificate, model, images.shape[1:]))
    for method, parts in zip(certificate.methods, found, strict=True):
        told += _of_method(method, parts)
    return told


def _proven_again(certificate: Certificate, model: EarlyExitNet, images: Floats, labels: Ints) -> list[list[Proven]]:
    """Return what each of the certificate's methods proves, in batches."""
    device = next(model.parameters()).device
    policy = parse_policy(certificate.policy, len(certificate.mmacs), certificate.calibration)
    network = traced(model, images.shape[1:])
    ensure_same(network, model, torch.from_numpy(images[:8]).to(device))
    batches = []
    for start in range(0, len(labels), SLICE):
        x, y = (torch.from_numpy(each[start : start + SLICE]).to(device) for each in (images, labels))
        kinds = [kind for kind in METHODS if kind in {method.name for method in certificate.methods}]
        batches.append(proven(network, model, policy, x, y, certificate.eps, methods=kinds, neurons=certificate.neurons))
    return [list(parts) for parts in zip(*batches, strict=True)]


def _of_network(certificate: Certificate, model: EarlyExitNet, shape: Shape) -> Iterator[Mismatch]:
    costs = measure_costs(model, shape).mmacs
    same = len(costs) == len(certificate.mmacs)
    if not same or any(abs(a - b) > COUNTED * max(b, COUNTED) for a, b in zip(certificate.mmacs, costs, strict=True)):
        yield Mismatch("certificate", f"recorded mmacs {list(certificate.mmacs)}, counted {list(costs)}")
    if certificate.understood != understood(parse_policy(certificate.policy, len(costs), certificate.calibration)):
        yield Mismatch("certificate", "what it says of the bounds of its rule's gates is not so")


def _of_method(method: Method, parts: Sequence[Proven]) -> Iterator[Mismatch]:
    right = set(torch.cat([part.right for part in parts]).nonzero()[:, 0].tolist())
    last = torch.cat([part.last for part in parts]).tolist()
    if forged := sorted(set(method.right) - right):
        yield Mismatch(f"certificate, {method.name}", f"certified, but these bounds do not prove it: {_samples(forged)}")
    if lower := [i for i, (said, found) in enumerate(zip(method.last, last, strict=True)) if said < found]:
        yield Mismatch(f"certificate, {method.name}", f"claimed to leave earlier than these bounds prove: {_samples(lower)}")


def _samples(indices: Sequence[int]) -> str:
    named = ", ".join(map(str, indices[:SHOWN]))
    more = f" and {len(indices) - SHOWN} more" if len(indices) > SHOWN else ""
    return f"sample{'s' if len(indices) > 1 else ''} {named}{more}"
