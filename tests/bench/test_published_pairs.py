"""The paired differences that the README tells are those of the published boards' networks, sample by sample."""

import pytest

from exitbench.analysis.compare.pairs import compare, unpaired
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from tests.bench.test_published_boards import FOUND, PUBLISHED, tables


@pytest.mark.no_cover
def test_the_readme_tells_the_paired_differences(bench, tmp_path):
    _, stated = tables(FOUND)
    pairs = [[name.split("`")[1] for name in row[:2]] for row in stated]
    names = sorted({name.replace(":", "-*-") for pair in pairs for name in pair})
    files = [path for name in names for path in PUBLISHED.glob(f"*/figures/{name}.tar.xz")]
    assert len(files) == len(names) > 0 and bench("merge", *files, "--results", tmp_path)[0] == 0
    networks = {f"{each.record.model}:{each.record.training}": each for each in evaluations(Store(tmp_path / "store"))}
    for (a, b), (_, _, *figures) in zip(pairs, stated, strict=True):
        assert not list(unpaired(networks[a].record, networks[b].record))
        found = compare(networks[a], networks[b])
        said = []
        for title in ("clean", "worst case"):
            (pair,) = [each for each in found.pairs if each.title == title]
            low, high = (100 * end for end in pair.interval)
            said.append(f"{100 * pair.difference:+.1f} ({low:+.1f} .. {high:+.1f})")
        (clean,) = [each for each in found.pairs if each.title == "clean"]
        assert figures == [*said, f"{clean.mmacs[1] - clean.mmacs[0]:+.1f}"]
