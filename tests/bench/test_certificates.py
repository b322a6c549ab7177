"""Certificates beside evaluations: no stored image contradicts one, and reports and commands show what they are."""

import io
import json
from dataclasses import replace

import msgspec
import pandas as pd
import pytest
import torch
from rich.console import Console

import exitbench
from exitbench.attacks.regions import ThreatModel
from exitbench.errors import UserError
from exitbench.models.policy_text import policy_text
from exitbench.report.csv_file import to_csv
from exitbench.report.leaderboard.certificate import summary as of_certificate
from exitbench.report.leaderboard.table import leaderboard
from exitbench.report.leaderboard.terminal import summary
from exitbench.report.page.board import columns, rows
from exitbench.scoring.load import evaluations
from exitbench.store.archive import unpacked
from exitbench.store.certificate import CERTIFICATE, Certificate, Method, better, certificate_key
from exitbench.store.store import Store
from tests.bench.trained import TRAINED_ON, digits, trained
from tests.toys import ROOT

EPS, N = 0.02, 32


@pytest.fixture(scope="module")
def images():
    batch = digits().batch(TRAINED_ON, TRAINED_ON + N)
    return batch.x, batch.y


@pytest.fixture(scope="module")
def results(tmp_path_factory, images):
    """An evaluation with attacks of error and cost, and a certificate of the same."""
    net, policy = trained()
    folder = tmp_path_factory.mktemp("certified")
    asked = {"dataset": images, "policy": policy_text(policy), "eps": EPS, "results": folder, "name": "net"}
    exitbench.evaluate(net, attacks="max_average,slowdown:free", steps=10, progress=False, **asked)
    exitbench.certify(net, methods="crown,ibp,crown_ibp", **asked)
    return folder


@pytest.fixture
def evaluation(results):
    (found,) = evaluations(Store(results / "store"))
    return found


def text_of(block):
    console = Console(width=120, file=io.StringIO())
    console.print(block)
    return console.file.getvalue()


def nothing_contradicts(certificate, evaluation):
    """Every stored image is right where the certificate says so, and leaves no later than it says, by each kind of bounds."""
    bounded = [evaluation.clean, *(each for each in evaluation.attacks if each.within.all())]
    for method in certificate.methods:
        assert all(evaluation.worst[i] for i in method.right)
        assert all(result.exits[i] <= k for result in bounded for i, k in enumerate(method.last))


@pytest.mark.parametrize("folder", sorted((ROOT / "results" / "published").glob("*/")), ids=lambda folder: folder.name)
def test_no_published_image_contradicts_a_published_certificate(folder):
    """Archives come without certificates, so that a folder has them beside its archives, as a store does."""
    files = sorted(folder.rglob("certificates/*.json"))
    if not files:
        pytest.skip("no certificate is published here")
    certificates = {path.stem: CERTIFICATE.read_text(path.read_bytes(), path) for path in files}
    for archive in sorted(folder.glob("figures/*.tar.xz")):
        with unpacked(archive) as root:
            for each in evaluations(Store(root)):
                if (certificate := certificates.pop(certificate_key(each.record), None)) is not None:
                    nothing_contradicts(certificate, each)
    assert not certificates, "each is of a published evaluation"


def test_no_stored_image_breaks_a_certified_sample_or_goes_beyond_its_last_exit(evaluation):
    certificate = evaluation.certificate
    assert [method.name for method in certificate.methods] == ["ibp", "crown_ibp", "crown"]
    nothing_contradicts(certificate, evaluation)
    found = [(certificate.accuracy(method), -certificate.cost(method)) for method in certificate.methods]
    assert found == sorted(found) and found[0] < found[-1]
    assert 0 < certificate.accuracy() < evaluation.worst.mean() < 1
    assert (
        max(evaluation.mean_cost(result) for result in (evaluation.clean, *evaluation.attacks))
        < certificate.cost()
        < evaluation.record.mmacs[-1]
    )


def test_it_stands_beside_the_worst_case(evaluation):
    table = pd.read_csv(io.StringIO(to_csv(leaderboard([evaluation])))).set_index("attack")
    assert table.loc["worst", "certified"] == pytest.approx(evaluation.certificate.accuracy())
    assert table.loc["worst", "certified_mmacs"] == pytest.approx(evaluation.certificate.cost())
    assert table.drop("worst")["certified"].isna().all()
    text = text_of(summary(evaluation, ["average"]))
    assert f"{100 * evaluation.certificate.accuracy():.2f}" in next(line for line in text.splitlines() if "certified" in line)


def test_the_page_has_a_column_for_it_where_something_was_tried(evaluation):
    certificate = evaluation.certificate
    cells = rows({"board": [evaluation]})[0].cells
    assert (cells["certified"].text, cells["certified"].order) == (f"{100 * certificate.accuracy():.1f}", certificate.accuracy())
    assert cells["certified_mmacs"].text == f"{certificate.cost():.2f}"
    nothing = msgspec.structs.replace(certificate, methods=(msgspec.structs.replace(certificate.proven, right=()),))
    assert rows({"board": [replace(evaluation, certificate=nothing)]})[0].cells["certified"].text == "nothing"
    shown = {column.key for column in columns(rows({"board": [evaluation]}))}
    assert {"certified", "certified_mmacs"} <= shown
    without = columns(rows({"board": [replace(evaluation, certificate=None)]}))
    assert not {"certified", "certified_mmacs"} & {column.key for column in without}


def test_where_nothing_is_certified_a_word_says_so(evaluation):
    certificate = evaluation.certificate
    empty = msgspec.structs.replace(certificate, methods=(msgspec.structs.replace(certificate.proven, right=()),))
    bare = msgspec.structs.replace(certificate, understood=False, methods=empty.methods)
    loose = replace(evaluation, certificate=empty)
    assert pd.read_csv(io.StringIO(to_csv(leaderboard([loose])))).set_index("attack").loc["worst", "certified"] == "nothing"
    assert "nothing" in next(line for line in text_of(summary(loose, [])).splitlines() if "certified" in line)
    assert "nothing is certified" in text_of(of_certificate(empty)) and "no bounds" not in text_of(of_certificate(empty))
    assert "gates of this rule have no bounds" in text_of(of_certificate(bare))


def test_there_are_no_columns_for_it_where_nothing_was_tried(evaluation):
    assert not {"certified", "certified_mmacs"} & set(leaderboard([replace(evaluation, certificate=None)]).columns)


@pytest.mark.parametrize("claim", ["right", "last"])
def test_a_certificate_that_a_stored_image_contradicts_is_left_out(claim, evaluation, results, tmp_path, caplog):
    certificate = evaluation.certificate
    everything = {"right": tuple(range(N)), "last": (0,) * N}
    forged = msgspec.structs.replace(certificate.proven, **{claim: everything[claim]})
    path = results / "store" / "certificates" / f"{certificate_key(certificate)}.json"
    honest = path.read_bytes()
    try:
        path.write_bytes(CERTIFICATE.text(msgspec.structs.replace(certificate, methods=(forged,))))
        (found,) = evaluations(Store(results / "store"))
    finally:
        path.write_bytes(honest)
    assert found.certificate is None
    assert "the certificate of net is wrong" in caplog.text


def test_of_two_certificates_the_one_that_proves_more_is_kept(evaluation, tmp_path):
    full = evaluation.certificate
    less = msgspec.structs.replace(full, methods=full.methods[:1])
    assert less.accuracy() < full.accuracy()
    store = Store(tmp_path)
    for each in (less, full, less):
        store.write_certificate(each)
    assert store.read_certificate(certificate_key(full)) == full
    assert better(full, None) == full and better(less, full) == full


def test_a_damaged_certificate_counts_as_not_there(evaluation, tmp_path, caplog):
    store = Store(tmp_path)
    key = certificate_key(evaluation.certificate)
    assert store.read_certificate(key) is None
    store.write_certificate(evaluation.certificate)
    path = tmp_path / "certificates" / f"{key}.json"
    content = json.loads(path.read_text())
    for name, value in (("version", 99), ("eps", 1.0), ("methods", []), ("n", 7)):
        path.write_text(json.dumps({**content, name: value}))
        assert store.read_certificate(key) is None
    assert "is the certificate of another evaluation" in caplog.text and "bounds are of version 99" in caplog.text
    for wrong in ({"right": (0, 0)}, {"right": (N,)}, {"last": (3,) * N}, {"last": (0,)}):
        with pytest.raises(ValueError, match=r"`right`|`last`"):
            Certificate(**{**fields_of(evaluation.certificate), "methods": (with_(evaluation.certificate.proven, wrong),)})


def fields_of(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def with_(method, changes):
    return Method(**{**fields_of(method), **changes})


def test_a_radius_of_zero_certifies_what_is_right(images):
    net, policy = trained()
    found = exitbench.certify(net, dataset=images, policy=policy_text(policy), eps=0.0)
    right = net.deployed(images[0], policy).argmax(-1) == images[1]
    assert set(found.proven.right) <= set(right.nonzero()[:, 0].tolist()) and found.accuracy() > 0.9
    assert found.norm == ThreatModel("Linf", 0).norm


def test_what_cannot_be_certified_is_said(images, bench):
    net, _ = trained()
    with pytest.raises(UserError, match=r"no such bounds: 'ipb'; known: ibp, crown_ibp, crown"):
        exitbench.certify(net, dataset=images, methods="ipb")
    with pytest.raises(UserError, match="name at least one kind"):
        exitbench.certify(net, dataset=images, methods="")

    class Smooth(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.GELU(), torch.nn.Linear(10, 10)
            )

        def forward(self, x):
            return self.layers(x)

    with pytest.raises(UserError, match=r"no bounds are known of the layer .*GELU"):
        exitbench.certify(Smooth().eval(), dataset=images)


def test_the_command(bench, tmp_path):
    code, out, err = bench(
        "certify", "--model", "rdi_smallcnn", "--dataset", "digits", "--n", 3, "--eps", 0.004, "--method", "ibp"
    )
    assert code == 0, err
    assert "rdi_smallcnn on digits test, Linf 0.004, n = 3: what no attack can break" in out and "ibp" in out
    (path,) = (tmp_path / "results" / "store" / "certificates").glob("*.json")
    assert json.loads(path.read_text())["n"] == 3
    code, _, err = bench("certify", "--model", "rdi_smallcnn", "--dataset", "digits", "--norm", "L2")
    assert code == 2 and "nothing can be certified in L2" in err
    code, _, err = bench("certify", "--model", "rdi_smallcnn", "--dataset", "digits", "--method", "magic")
    assert code == 2 and "no such bounds: 'magic'" in err
