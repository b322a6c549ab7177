"""Packs an evaluation into one file that anybody verifies: ``exitbench submit``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from safetensors.torch import save

from exitbench.analysis.compare.find import describe
from exitbench.api.submitted_code import packed_code, reference_of
from exitbench.data.cards import find_dataset
from exitbench.errors import UserError, as_user_errors
from exitbench.models.rules.own import PREFIX
from exitbench.models.tensor_file import read_file
from exitbench.models.weights import SHIPPED, file_sha256
from exitbench.report.page.command import commands
from exitbench.scoring.evaluation import Evaluation
from exitbench.scoring.load import evaluation_of
from exitbench.scoring.ranking import flags_text, worst_status
from exitbench.store.archive import figures
from exitbench.store.run_record import RunRecord
from exitbench.store.store import Store
from exitbench.target.networks import Network, own_network, stored_network
from exitbench.target.normalised import normalised
from exitbench.target.registered_weights import registered_weights
from exitbench.verify import export_file
from exitbench.verify.check import verify
from exitbench.verify.claims import Claims, subject_of
from exitbench.verify.results import find_results
from exitbench.verify.scorer import Scorer
from exitbench.verify.sources import claims_in_results
from exitbench.verify.subject import load_subject
from exitbench.verify.submission import submitted
from exitbench.verify.submission_file import FIGURES, IMAGES, WEIGHTS, NetworkKind, Submission, to_bytes

GIVEN = ("name", "authors", "paper", "venue", "year", "url", "code", "extra_data", "contact", "note")
"""What an author may say of a network, by name."""


@dataclass(frozen=True)
class Packed:
    """A submission.

    Attributes:
        content: the file.
        evaluation: what it is of.
        counterexamples: number of images in it.
        holds_weights: whether weights are in it; shipped ones are named by their digest alone.
        code: names of the source files in it.
    """

    content: bytes
    evaluation: Evaluation
    counterexamples: int
    holds_weights: bool
    code: tuple[str, ...]


def submit(
    results: Path,
    data: Path,
    *,
    model: str | None = None,
    training: str | None = None,
    run: str | None = None,
    weights: Path | None = None,
    given: Mapping[str, str] | None = None,
) -> Packed:
    """Pack the only evaluation that matches, and verify what was packed.

    An evaluation that trust checks fail, or whose matrix of attacks is not whole, is packed, and says so.

    Args:
        results: folder of results.
        data: folder of the datasets.
        model: network in reports, or its reference: the code of a factory is executed, and packed.
        training: name of its weights.
        run: only one run's attacks: the file of its record, or its id.
        weights: file of its tensors; None for registered weights, and for a network whose factory returns them.
        given: what its author says of it, by the names in ``GIVEN``.

    Raises:
        UserError: If there is no such evaluation, or several; if it cannot be verified by others; or if the weights are missing,
            or are not those that were evaluated.
    """
    with as_user_errors():
        network = own_network(model)
        evaluation, store = _evaluation(results, network.name if network else model, training, run)
        claims = _claims(evaluation, results, data, run)
        network = _as_evaluated(network, evaluation.record)
        file = _weights_file(network, evaluation.record, weights)
        with tempfile.TemporaryDirectory() as folder:
            packed = None if file is None else _as_safetensors(file, network, Path(folder))
            scorer = _scorer(claims, network, file if packed is None else packed, file)
            code = packed_code(network)
            members = {
                FIGURES: figures(store, evaluation.records),
                IMAGES: export_file.to_bytes([claims]),
                **({} if packed is None else {WEIGHTS: packed.read_bytes()}),
                **code,
            }
            content = to_bytes(_says(evaluation, claims, network, given or {}), members)
            _verify(content, Path(folder), data, scorer)
    return Packed(content, evaluation, len(claims.row), packed is not None, tuple(code))


def _evaluation(results: Path, model: str | None, training: str | None, run: str | None) -> tuple[Evaluation, Store]:
    """Return the only evaluation that matches, and its store."""
    runs = find_results(run or str(results), results, model)
    store = Store(runs.store)
    found = [evaluation_of(records, store) for records in runs.records if training in (None, records[0].training)]
    finished = [each for each in found if each is not None]
    if not finished:
        raise UserError(f"{results} holds no finished evaluation of what is asked for; run one with `exitbench run`")
    if len(finished) > 1:
        which = "; ".join(map(describe, finished))
        many = f"a submission is of one evaluation, these are {len(finished)}: {which}"
        raise UserError(f"{many}. Choose by --model, --training or --run")
    evaluation, record = finished[0], finished[0].record
    if not evaluation.attacked:
        raise UserError(f"{describe(evaluation)} has no finished attack, and no worst case to submit; run --attack all")
    if find_dataset(record.dataset).origin is not None or not evaluation.knows_data:
        raise UserError(f"{evaluation.dataset} is no dataset that others have: `exitbench list datasets` names those of boards")
    if record.policy.startswith(PREFIX):
        raise UserError(f"the exit rule {record.policy} is your own code; `exitbench list policies` names those of boards")
    return evaluation, store


def _claims(evaluation: Evaluation, results: Path, data: Path, run: str | None) -> Claims:
    """Return the claims of an evaluation with all its counterexamples."""
    subject = subject_of(evaluation.record)
    found = claims_in_results(run or str(results), results, data, evaluation.record.model)
    claims = next(each for each in found if each.subject == subject)
    if claims.flaws:
        raise UserError(f"the store contradicts itself ({claims.flaws[0]}); see `exitbench verify {run or results}`")
    return claims


def _as_evaluated(network: Network | None, record: RunRecord) -> Network:
    """Return the network that was evaluated, with the normalisation that it was given."""
    if network is None:
        try:
            return stored_network(record.model)
        except LookupError as error:
            asked = record.requested.model if record.requested else "path/to/file.py:factory"
            raise UserError(
                f"{record.model} is a network of your own: name what makes it, --model {asked}; it is executed"
            ) from error
    mean, std = (record.requested.mean, record.requested.std) if record.requested else (None, None)
    return normalised(network, mean, std)


def _weights_file(network: Network, record: RunRecord, weights: Path | None) -> Path | None:
    """Return the file of the weights; None where the network has its own."""
    if weights is not None or network.card is None:
        asked = record.requested.weights if record.requested else None
        if weights is None and asked is not None:
            raise UserError(f"{record.model} was evaluated with weights of a file: name it, --weights {asked}")
        return weights
    return registered_weights(record.model, record.weights)


def _as_safetensors(file: Path, network: Network, folder: Path) -> Path | None:
    """Return the weights to pack, as safetensors; None for those that ship with exitbench.

    A registered network is known by the digest of its file, which must be safetensors; another one by its tensors.
    """
    shipped = SHIPPED.glob(f"{network.name}-*.safetensors") if network.card is not None else ()
    if file_sha256(file) in set(map(file_sha256, shipped)):
        return None
    is_safetensors = file.suffix == ".safetensors"
    if network.card is not None and not is_safetensors:
        raise UserError(
            f"{file} is a torch checkpoint; registered networks are submitted with safetensors: save them with "
            "safetensors.torch.save_file(net.state_dict(), 'weights.safetensors') and evaluate that file"
        )
    target = folder / WEIGHTS
    if is_safetensors:
        target.write_bytes(file.read_bytes())
    else:
        tensors = next(iter(read_file(file).states.values()))
        target.write_bytes(save({name: tensor.clone().contiguous() for name, tensor in tensors.items()}))
    return target


def _scorer(claims: Claims, network: Network, weights: Path | None, named: Path | None) -> tuple[Scorer, str]:
    """Return the network with the weights that are packed, which must be those that were evaluated."""
    model, digest = load_subject(claims.subject, claims.clean_images.shape[1:], weights, "auto", network)
    if digest != claims.subject.weights:
        what = named.name if named else "what the factory returns"
        raise UserError(
            f"{what} is not what was evaluated: SHA-256 {digest[:12]}..., the results are of "
            f"{claims.subject.weights[:12]}...; name the weights of the evaluation with --weights, or run it again with these"
        )
    return Scorer(model), digest


def _says(evaluation: Evaluation, claims: Claims, network: Network, given: Mapping[str, str]) -> Submission:
    kind: NetworkKind = "registered" if network.card is not None else "own" if reference_of(network) else "published"
    clean, worst = int(evaluation.clean.correct.sum()), int(evaluation.worst.sum())
    return Submission(
        subject=claims.subject,
        network=kind,
        reference=reference_of(network),
        reported={"none": clean, "worst": worst},
        status=worst_status(evaluation),
        flags=flags_text(evaluation),
        given=dict(given),
        commands=tuple(commands(evaluation)),
        computed_with=evaluation.computed_with(),
        exitbench=version("exitbench"),
        files={},
    )


def _verify(content: bytes, folder: Path, data: Path, scorer: tuple[Scorer, str]) -> None:
    """Check what was packed as whoever gets it will, but for the trust checks."""
    path = folder / "submission.zip"
    path.write_bytes(content)
    with submitted(path, data) as found:
        if mismatches := verify(found.claims, *scorer).mismatches:
            raise UserError(f"what was packed does not hold ({mismatches[0]}): nothing is written; run the evaluation again")


def given_fields(texts: Sequence[str]) -> dict[str, str]:
    """Parse what an author says, from texts such as ``paper=Title``.

    Raises:
        UserError: If a text has another form, names nothing that can be said, or is longer than a line is.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        value = value.strip()
        if not equals or name not in GIVEN or not value.isprintable() or not 0 < len(value) <= 1_000:
            form = f"the form is NAME=VALUE, a line of at most 1,000 characters; the names are {', '.join(GIVEN)}"
            raise UserError(f"--field {text[:80]!r}: {form}")
        found[name] = value
    return found
