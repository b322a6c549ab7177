"""The source files of a network of somebody's own, as they stand in a submission."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exitbench.errors import UserError
from exitbench.models.identity import source_files
from exitbench.target.networks import FactoryNetwork, Network
from exitbench.target.normalised import NormalisedNetwork
from exitbench.verify.submission_file import CODE


def packed_code(network: Network) -> dict[str, bytes]:
    """Return the files that a factory is built on, by their names in the archive; none for other networks.

    Raises:
        UserError: If a file has a name that a submission does not take.
    """
    paths = _sources(network)
    if not paths:
        return {}
    root = _root(paths)
    found = {f"code/{path.relative_to(root).as_posix()}": path.read_bytes() for path in _with_packages(paths, root)}
    if odd := [name for name in found if not CODE.fullmatch(name)]:
        name = odd[0].removeprefix("code/")
        raise UserError(f"{name}: files of a submission have names of letters, digits, `_` and `-`; rename it, and evaluate it")
    return found


def reference_of(network: Network) -> str | None:
    """Return what names a factory from the folder ``code/`` of the archive; None for other networks."""
    factory, paths = _factory_network(network), _sources(network)
    if factory is None:
        return None
    place, _, name = factory.factory.where.rpartition(":")
    own = paths[0].relative_to(_root(paths)).as_posix() if place.endswith(".py") else place
    return f"{own}:{name}{factory.factory.arguments.text}"


def _factory_network(network: Network) -> FactoryNetwork | None:
    inner = network.inner if isinstance(network, NormalisedNetwork) else network
    return inner if isinstance(inner, FactoryNetwork) else None


def _sources(network: Network) -> list[Path]:
    own = _factory_network(network)
    return [] if own is None else source_files(own.factory.build(), own.factory.module)


def _root(paths: Sequence[Path]) -> Path:
    """Return the folder that all files can be imported from: the lowest that holds them and is no package."""
    common = set.intersection(*(set(path.parents) for path in paths))
    root = max(common, key=lambda folder: len(folder.parts))
    while (root / "__init__.py").is_file():
        root = root.parent
    return root


def _with_packages(paths: Sequence[Path], root: Path) -> list[Path]:
    """Return the files, and what makes packages of their folders."""
    folders = {folder for path in paths for folder in path.parents if folder.is_relative_to(root)}
    return sorted({*paths, *(folder / "__init__.py" for folder in folders if (folder / "__init__.py").is_file())})
