"""The example of the page on Python runs as it stands."""

from tests.processes import run
from tests.toys import ROOT


def test_the_example_runs(tmp_path):
    example = ROOT / "docs" / "examples" / "evaluate_in_python.py"
    done = run(cwd=tmp_path, code=f"import runpy; runpy.run_path({str(example)!r}, run_name='__main__')")
    assert done.returncode == 0, done.stderr
    assert "TwoExits on in-memory-" in done.stdout and "worst case" in done.stdout
    assert (tmp_path / "evaluation.png").stat().st_size > 5000 and (tmp_path / "results" / "store" / "runs").is_dir()
