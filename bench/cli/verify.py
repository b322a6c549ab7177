"""``bench verify``: every stored counterexample, re-scored with the plain model and no attack's code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exitbench.cli.option_types import NamedPath
from exitbench.cli.options import data_option, device_option, results_option, rule_option, with_normalisation
from exitbench.cli.say import say

if TYPE_CHECKING:
    from exitbench.data.split import Split
    from exitbench.target.networks import Network
    from exitbench.verify.check import Verified
    from exitbench.verify.claims import Claims, Mismatch
    from exitbench.verify.scorer import Scorer
    from exitbench.verify.submission_file import Opened

HOLDS, FAILS = 0, 1
_SHOWN = 20


@dataclass(frozen=True)
class _Found:
    """Claims to check; of a submission with its file, and with its clean images as the test split."""

    claims: Claims
    submission: Opened | None = None
    split: Split | None = None


@click.command("verify", short_help="Check stored results, or a file that somebody sent you")
@click.argument("what", metavar="RUN_OR_FILE")
@click.option("--model", help="Only the claims about this network; your own as path/to/file.py:factory, which is executed.")
@click.option(
    "--weights",
    type=NamedPath(dir_okay=False),
    help="A safetensors file or PyTorch state dict. [default: the registered weights with the claimed digest]",
)
@with_normalisation
@click.option("--dataset", help="Where your own images are, as in `run`; the file of a function is executed.")
@click.option(
    "--images",
    type=NamedPath(dir_okay=False, exists=True),
    help="An exported file with the counterexamples that the results folder lacks.",
)
@click.option("--probe/--no-probe", default=True, show_default=True, help="Run the trust checks of a results folder again.")
@click.option("--prove/--no-prove", default=True, show_default=True, help="Prove the certificates of a results folder again.")
@device_option
@data_option
@results_option
@rule_option
def command(
    what: str,
    model: str | None,
    weights: Path | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    dataset: str | None,
    images: Path | None,
    probe: bool,
    prove: bool,
    device: str,
    data: Path,
    results: Path,
) -> None:
    """Check the claims of RUN_OR_FILE: a results folder, one run of it, an exported file, or a submission.

    Every counterexample must lie in its ball and must break the plain network as claimed. Clean accuracy and worst case
    are derived again, and costs are counted on the network. The trust checks of a results folder or a submission are run
    again, the only part that attacks, and the certificates of a folder are proven again. A results folder needs its dataset,
    the files do not. A run is named by its record's file or its id.
    Exit codes: 0 all claims hold; 1 some do not; 2 something could not be read.
    """
    import time
    from dataclasses import replace

    from exitbench.data.references import dataset_given
    from exitbench.errors import UserError, as_user_errors
    from exitbench.target.networks import own_network
    from exitbench.target.normalised import normalised
    from exitbench.verify.certificates import proofs_of
    from exitbench.verify.check import verify

    started = time.perf_counter()
    network = own_network(model)
    if network is not None:
        with as_user_errors():
            network = normalised(network, mean, std)
    elif (mean, std) != (None, None):
        raise UserError("--mean and --std go with --model, for a network of your own")
    if dataset is not None:
        with as_user_errors():
            dataset_given(dataset)
    name = model if network is None else network.name
    scorers: dict[tuple[str, str], tuple[Scorer, str]] = {}
    verified = []
    for each in _found(what, results, data, name, images):
        claims = each.claims
        which = (claims.subject.model, claims.subject.weights)
        if which not in scorers:
            scorers[which] = _loaded(each, weights, device, network)
        with as_user_errors():
            found = verify(claims, *scorers[which])
            if probe and claims.records:
                found = replace(found, mismatches=(*found.mismatches, *_probed(found, scorers[which][0], data, each.split)))
            if scorers[which][1] == claims.subject.weights:
                found = replace(found, mismatches=(*found.mismatches, *proofs_of(found, scorers[which][0].model, prove=prove)))
            verified.append(found)
        _show(verified[-1])
        if each.submission is not None:
            _show_submission(each.submission)
        elif not verified[-1].mismatches and probe:
            _record(verified[-1])
    lone = _lone(what, name, [each.claims for each in verified], (data, weights, device, network)) if prove else []
    if not verified and not lone:
        raise UserError(f"{what} holds nothing to verify" + (f" of model {name!r}" if name else ""))
    failed = sum(len(each.mismatches) for each in verified) + sum(lone)
    scored = sum(len(each.claims.row) for each in verified)
    attacks = sum(each.claims.n_attacks for each in verified)
    seconds = time.perf_counter() - started
    say(f"{scored} counterexamples checked ({attacks} attacks), {failed} mismatches, {seconds:.1f} s")
    raise click.exceptions.Exit(FAILS if failed else HOLDS)


def _found(what: str, results: Path, data: Path, model: str | None, images: Path | None) -> Iterator[_Found]:
    from exitbench.verify.sources import claims_in_file, claims_in_results
    from exitbench.verify.submission import submitted
    from exitbench.verify.submission_file import is_submission

    if is_submission(Path(what)):
        with submitted(Path(what), data) as found:
            if model in (None, found.claims.subject.model):
                yield _Found(found.claims, found.opened, found.split)
    elif Path(what).is_file() and Path(what).suffix != ".json":
        yield from map(_Found, claims_in_file(Path(what), data, model))
    else:
        yield from map(_Found, claims_in_results(what, results, data, model, images, part=True))


def _lone(what: str, model: str | None, claims: list[Claims], given: tuple[Path, Path | None, str, Network | None]) -> list[int]:
    """Prove the certificates of a results folder that no run there is of, and return the number of mismatches of each.

    Raises:
        UserError: If the weights or data of one are not at hand, once all others are proven.
    """
    from exitbench.errors import UserError
    from exitbench.store.certificate import certificate_key
    from exitbench.verify.certificates import prove_alone, stored_certificates
    from exitbench.verify.results import store_in

    if not Path(what).is_dir():
        return []
    seen, found, missing = {certificate_key(each.subject) for each in claims}, [], []
    for each in stored_certificates(store_in(Path(what)), model):
        if certificate_key(each) in seen:
            continue
        named = f"certificate of {each.model} (weights {each.weights[:12]}), {each.threat.text}, n = {each.n}"
        try:
            mismatches = prove_alone(each, *given)
        except UserError as error:
            missing.append(f"{named}: it cannot be proven again: {error}")
            continue
        for mismatch in mismatches:
            say(f"  MISMATCH {named}, {mismatch}", err=True)
        say(f"{named}: {'NOT PROVEN' if mismatches else f'{len(each.proven.right)} samples proven again'}")
        found.append(len(mismatches))
    if missing:
        raise UserError("; ".join(missing))
    return found


def _loaded(found: _Found, weights: Path | None, device: str, network: Network | None) -> tuple[Scorer, str]:
    """Return the network of the claims, and the digest of its weights, which a submission holds itself."""
    from exitbench.verify.scorer import Scorer
    from exitbench.verify.subject import load_subject

    claims, file = found.claims, found.submission
    own, shape = _network(found, network), claims.clean_images.shape[1:]
    net, digest = load_subject(claims.subject, shape, weights or (file.weights if file else None), device, own)
    return Scorer(net), digest


def _network(found: _Found, network: Network | None) -> Network | None:
    """Return the network of the claims, with the normalisation that a submission says; None for one that is looked up by name.

    Raises:
        UserError: If it is the code of whoever submitted it, which is not run unless it is named.
    """
    from exitbench.errors import UserError, as_user_errors
    from exitbench.target.normalised import NormalisedNetwork, normalised

    file = found.submission
    if file is None or (network is None and file.says.network != "own"):
        return network
    if network is None:
        raise UserError(
            f"{found.claims.subject.model} is code of whoever submitted it, which is not run by itself: unpack {file.path} "
            f"(`unzip {file.path} -d submission`), read {', '.join(file.code)}, and name it with "
            f"--model submission/code/{file.says.reference}, in a container without a network where you do not trust it"
        )
    requested = found.claims.records[0].requested
    if requested is None or requested.mean is None or isinstance(network, NormalisedNetwork):
        return network
    with as_user_errors():
        return normalised(network, requested.mean, requested.std)


def _probed(verified: Verified, scorer: Scorer, data: Path, split: Split | None) -> list[Mismatch]:
    """Return the trust results of the claims' records that are not what is measured again."""
    import numpy as np

    from exitbench.checks.again import trust_mismatches
    from exitbench.data.load import load_split
    from exitbench.verify.claims import Mismatch
    from exitbench.verify.results import trust_results

    claims = verified.claims
    robust = set(np.flatnonzero(verified.robust).tolist()) if claims.sources else None
    found = list(trust_results(claims))
    if not found:
        return []
    split = split or load_split(claims.subject.dataset, "test", claims.clean_images.shape[1:], data)
    return [
        Mismatch(f"trust checks {result.key[:12]}", what)
        for record, result in found
        for what in trust_mismatches(record, result, scorer.model, split, robust, scorer.unused)
    ]


def _show_submission(submission: Opened) -> None:
    """Print what a submission says of itself, which nothing here checks."""
    says = submission.says
    say(f"  its author says: {'; '.join(f'{name}: {text}' for name, text in says.given.items()) or 'nothing'}")
    say(f"  worst case: {says.status}; flags: {says.flags}; packed with exitbench {says.exitbench}")


def _record(verified: Verified) -> None:
    """Keep in the store that the claims hold, so that reports no longer mark them; not in one that can only be read."""
    from exitbench.verify.results import record_verification

    try:
        record_verification(verified.claims)
    except OSError as error:
        say(f"  that it was verified cannot be kept in {verified.claims.store}: {error.strerror or error}")


def _show(verified: Verified) -> None:
    """Print the result for one evaluation: what was checked, what holds, and every claim that does not."""
    from exitbench.verify.notes import notes

    claims, subject = verified.claims, verified.claims.subject
    n = len(claims.indices)
    say(
        f"{subject.model} ({subject.training}, weights {subject.weights[:12]}) on {subject.dataset} test, "
        f"{subject.threat.text}, n = {n}, policy {subject.policy}"
    )
    for mismatch in verified.mismatches[:_SHOWN]:
        say(f"  MISMATCH {mismatch}", err=True)
    if (more := len(verified.mismatches) - _SHOWN) > 0:
        say(f"  ... and {more} more mismatches", err=True)
    holds = "verified" if not verified.mismatches else "NOT VERIFIED"
    say(
        f"  {holds}: {len(claims.row)} counterexamples ({claims.n_attacks} attacks), {int(claims.broken.sum())} of them "
        f"break the deployed rule; right on {verified.clean} clean images, worst case {verified.worst} of {n}"
    )
    if rounding := int(verified.borderline.sum() + verified.clean_borderline.sum()):
        say(f"  {rounding} images lie within rounding of a threshold and are decided otherwise on this machine")
    if claims.is_the_dataset is None:
        say(f"  {subject.dataset} is not at hand: that these are its test images is not checked (see --data)")
    for note in notes(claims):
        say(f"  {note}")
    if claims.reported:
        say("  compared with the reported clean accuracy and worst case")
