"""``bench verify`` proves stored certificates again: a forged one is an error that names its samples."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import msgspec
import pytest

from exitbench.api.certify import certificate_of as made_of
from exitbench.attacks.regions import ThreatModel
from exitbench.runner.prepare import Request, prepare
from exitbench.store.certificate import CERTIFICATE, certificate_key
from exitbench.verify.certificates import SHOWN, certificate_mismatches
from tests.bench.evaluated import evaluate
from tests.bench.trained import ready, trained

N, EPS = 8, 0.003


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A results folder with a run and a certificate of it, and one with the certificate alone."""
    folder = tmp_path_factory.mktemp("proven")
    asked = Request("rdi_smallcnn", folder, dataset="digits", n=N, eps=EPS, knobs={"steps": 2})
    prepared = prepare(asked)
    _, store = evaluate(folder / "results" / "store", ["single:1"], prepared)
    store.write_certificate(made_of(prepared, ["ibp"], 0))
    shutil.copytree(folder / "results" / "store" / "certificates", folder / "alone" / "store" / "certificates")
    return folder


def forge(made, tmp_path, folder, change):
    """A copy of a results folder whose certificate is changed; the file keeps the name of its evaluation."""
    shutil.copytree(made / folder, tmp_path / folder)
    (path,) = (tmp_path / folder / "store" / "certificates").glob("*.json")
    certificate = CERTIFICATE.read_text(path.read_bytes(), path)
    path.write_bytes(CERTIFICATE.text(change(certificate)))
    return tmp_path / folder


def claiming(**claimed):
    return lambda each: msgspec.structs.replace(each, methods=(msgspec.structs.replace(each.methods[0], **claimed),))


@pytest.mark.parametrize("folder", ["results", "alone"])
def test_an_honest_certificate_holds_with_and_without_its_run(made, bench, folder):
    code, out, err = bench("verify", made / folder)
    assert code == 0, err
    assert "0 mismatches" in out and ("samples proven again" in out) == (folder == "alone")


@pytest.mark.parametrize("folder", ["results", "alone"])
def test_a_forged_one_is_named_with_its_samples(made, bench, tmp_path, folder):
    code, out, err = bench("verify", forge(made, tmp_path, folder, claiming(right=tuple(range(N)), last=(0,) * N)))
    assert code == 1 and "NOT" in out, err
    assert "certified, but these bounds do not prove it: sample" in err
    assert "claimed to leave earlier than these bounds prove: sample" in err


def test_without_proving_a_forgery_that_no_image_contradicts_passes(made, bench, tmp_path):
    code, out, _ = bench("verify", forge(made, tmp_path, "results", claiming(last=(0,) * N)), "--no-prove")
    assert code == 0 and "0 mismatches" in out


def test_one_of_another_evaluation_is_refused(made, bench, tmp_path):
    folder = forge(made, tmp_path, "alone", lambda each: msgspec.structs.replace(each, eps=0.3))
    code, _, err = bench("verify", folder)
    assert code == 2 and "it is the certificate of another evaluation" in err


def test_missing_weights_are_said(made, bench, tmp_path):
    folder = forge(made, tmp_path, "alone", lambda each: msgspec.structs.replace(each, weights="ab" * 32))
    (path,) = (folder / "store" / "certificates").glob("*.json")
    key = certificate_key(CERTIFICATE.read_text(path.read_bytes(), path))
    path.rename(path.with_name(f"{key}.json"))
    code, _, err = bench("verify", folder)
    assert code == 2 and "certificate of rdi_smallcnn (weights abababababab)" in err and "cannot be proven again" in err


@pytest.fixture(scope="module")
def honest():
    prepared = ready(n=N)
    small = replace(prepared, settings=replace(prepared.settings, region=ThreatModel("Linf", 0.02)))
    batch = small.split.batch(0, N)
    return made_of(small, ["crown"], 256), (trained()[0], batch.x.numpy(), batch.y.numpy())


def test_an_honest_one_is_proven_to_the_last_sample(honest):
    certificate, given = honest
    assert 0 < len(certificate.proven.right) < N and certificate_mismatches(certificate, *given) == []


def test_the_samples_that_are_added_to_a_proof_are_those_that_are_named(honest):
    certificate, given = honest
    left = sorted(set(range(N)) - set(certificate.proven.right))
    (mismatch,) = certificate_mismatches(claiming(right=tuple(range(N)))(certificate), *given)
    named = [int(each) for each in re.findall(r"\d+", mismatch.what)]
    assert named[:SHOWN] == left[:SHOWN]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (claiming(last=(0,) * N), "claimed to leave earlier than these bounds prove: sample"),
        (claiming(name="ibp"), "certified, but these bounds do not prove it"),
        (claiming(name="oracle"), "its bounds are oracle, those known are ibp, crown_ibp, crown"),
        (lambda each: msgspec.structs.replace(each, mmacs=tuple(0.5 * c for c in each.mmacs)), "recorded mmacs"),
        (lambda each: msgspec.structs.replace(each, understood=False), "gates is not so"),
        (lambda each: msgspec.structs.replace(each, norm="L2"), "nothing can be certified in L2"),
    ],
)
def test_each_part_of_it_is_proven_again(honest, change, why):
    certificate, given = honest
    assert why in " ".join(map(str, certificate_mismatches(change(certificate), *given)))
