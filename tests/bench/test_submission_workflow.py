"""The workflow that checks a submission: its steps are run as they stand, with a download and a verdict of the test's own."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess

import pytest
import yaml

from tests.toys import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "submission.yml"
FORM = ROOT / ".github" / "ISSUE_TEMPLATE" / "submission.yml"
FILE = b"a submission"
SHA256 = hashlib.sha256(FILE).hexdigest()
LINK = "https://example.org/some/net.zip?x=1&y=2"
BODY = f"### Link to the file\n\n{LINK}\n\n### SHA-256 of the file\n\n{SHA256}\n\n### Network\n\n$(touch own3d) `touch own3d`"


@pytest.fixture
def shell(tmp_path):
    """Runs a step of the workflow; its curl copies a file and notes its arguments, its exitbench prints and ends as told."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (tmp_path / "file").write_bytes(FILE)
    curl = f'#!/bin/bash\necho "$@" > {tmp_path}/asked\nwhile [ "$1" != --output ]; do shift; done\ncp {tmp_path}/file "$2"\n'
    (programs / "curl").write_text(curl)
    (programs / "exitbench").write_text('#!/bin/bash\necho "$@"; echo \'```\'; echo verdict >&2; exit "$VERDICT"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    (job,) = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    steps = {step["name"]: step["run"] for step in job["steps"] if "run" in step}

    def run(name, **environment):
        told = {"RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), **environment}
        path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        asked = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps[name]]
        return subprocess.run(asked, cwd=tmp_path, env=os.environ | told | path, capture_output=True, text=True, check=False)

    return run


def test_the_link_and_the_digest_are_taken_from_the_form_and_nothing_in_it_is_run(shell, tmp_path):
    done = shell("Fetch", SAID=BODY)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().split()
    assert asked[-2:] == ["--", LINK] and "--proto" in asked and (tmp_path / "submission.zip").read_bytes() == FILE
    assert not (tmp_path / "own3d").exists()
    assert shell("Fetch", SAID=f"{LINK} {SHA256}").returncode == 0, "as the workflow is started by hand"


@pytest.mark.parametrize("said", [BODY.replace(SHA256, "0" * 64), BODY.replace("https:", "file:"), BODY.replace(SHA256, ""), ""])
def test_another_file_and_a_form_without_link_or_digest_end_it(shell, said):
    assert shell("Fetch", SAID=said).returncode != 0


@pytest.mark.parametrize("verdict", [0, 1, 2])
def test_the_verdict_is_that_of_verify_and_stands_in_the_summary(shell, tmp_path, verdict):
    done = shell("Check", VERDICT=str(verdict))
    assert done.returncode == verdict
    assert f"verify {tmp_path}/submission.zip" in done.stdout and "verdict" in (tmp_path / "verdict.txt").read_text()
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("```\n") and summary.count("```") == 2, "nobody's text ends the block"


def test_it_may_read_alone_and_names_no_strangers_code():
    text = WORKFLOW.read_text()
    found = yaml.safe_load(text)
    (job,) = found["jobs"].values()
    assert found["permissions"] == {"contents": "read"} and "permissions" not in job
    assert "secrets" not in text and "--model" not in text
    assert all("${{" not in step.get("run", "") for step in job["steps"])
    assert next(step for step in job["steps"] if "checkout" in step.get("uses", ""))["with"] == {"persist-credentials": False}
    assert "github.event.label.name == 'check submission'" in job["if"]


def test_the_form_asks_for_what_the_workflow_reads_and_the_page_names_both():
    form = yaml.safe_load(FORM.read_text())
    fields = {each["id"]: each for each in form["body"] if "id" in each}
    assert all(fields[name]["validations"]["required"] for name in ("link", "sha256", "network", "kind"))
    assert form["name"] in (page := (ROOT / "docs" / "submissions.md").read_text()) and "workflows/submission.yml" in page
    (link,) = re.findall(r"\((\.\./blob/main/[^)]+)\)", form["body"][0]["attributes"]["value"])
    assert (ROOT / link.removeprefix("../blob/main/")).is_file()
