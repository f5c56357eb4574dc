"""The two commits that `polobench ab` compares, checked out beside each other, each with its own entry points.

If both ask for the same packages and this environment has them, they share it: each commit's worktree and a folder with
its metadata come first on the path. Otherwise each commit is installed in a virtual environment of its own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from polobench.core.errors import UsageError
from polobench.run.signals import handled

Say = Callable[[str], object]


@dataclass(frozen=True)
class Side:
    """One commit, ready to run."""

    ref: str  # as the user wrote it
    commit: str  # its hash
    root: Path  # its worktree
    home: Path  # the folder that its polobench must be imported from
    python: Path  # the interpreter
    paths: tuple[str, ...] = ()  # what stands first on `sys.path`


@contextmanager
def checked_out(repository: Path, refs: Sequence[str], say: Say) -> Iterator[list[Side]]:
    """One side per reference, in worktrees that are removed afterwards, however it ends.

    Raises:
        UsageError: no git checkout, a reference that does not exist, a dirty tree, a commit that is no polobench or
            cannot be installed. Nothing was changed.
    """
    top = Path(_git(repository, "rev-parse", "--show-toplevel", wrong=f"{str(repository)!r} is no git checkout"))
    commits = [resolve(top, ref) for ref in refs]
    if _git(top, "status", "--porcelain", "--untracked-files=no"):
        raise UsageError(f"the working tree {str(top)!r} has changes that are in no commit (commit or undo them)")
    # a polite kill ends it as Ctrl-C does, so that it cleans up
    terminate = handled(signal.SIGTERM, signal.default_int_handler)
    with terminate, tempfile.TemporaryDirectory(prefix="polobench-ab-") as name:
        folder = Path(name).resolve()
        roots = [folder / f"side{number}" / "tree" for number in range(len(refs))]  # equally long: same memory layout
        try:
            for root, commit in zip(roots, commits, strict=True):
                _git(top, "-c", "core.hooksPath=/dev/null", "worktree", "add", "-q", "--detach", str(root), commit)
            yield _environments(list(zip(refs, commits, roots, strict=True)), say)
        finally:  # not `prune`, which would also forget a worktree on a drive that is away
            for root in roots:
                _run(["git", "-C", str(top), "worktree", "remove", "--force", "--force", str(root)])


def resolve(repository: Path, ref: str) -> str:
    """The hash of the commit that a reference names; raises `UsageError` where there is none."""
    wrong = f"no commit {ref!r} in {str(repository)!r} (allowed: a branch, a tag or a hash; a shallow clone has few)"
    return _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", wrong=wrong)


def _environments(checkouts: Sequence[tuple[str, str, Path]], say: Say) -> list[Side]:
    projects = [project_of(root, ref) for ref, _, root in checkouts]
    if not can_share([project.get("dependencies", []) for project in projects]):
        say("the commits need different packages, or some that are missing here: installing each with pip")
        return [_installed(*item) for item in checkouts]
    sides = []
    for (ref, commit, root), project in zip(checkouts, projects, strict=True):
        folder = root.parent / "metadata"
        write_metadata(folder, project)
        sides.append(Side(ref, commit, root, root, Path(sys.executable), (str(root), str(folder))))
    return sides


def project_of(root: Path, ref: str) -> dict[str, Any]:
    """The table [project] of a checkout; raises `UsageError` where it is not polobench's."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if project["name"] == "polobench":
            return dict(project)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UsageError(f"{ref!r} is no commit of polobench: its pyproject.toml does not name it")


def can_share(dependencies: Sequence[Sequence[str]]) -> bool:
    """Whether all ask for the same packages, and this environment has them."""
    return len({frozenset(item) for item in dependencies}) == 1 and all(map(_is_here, dependencies[0]))


def _is_here(dependency: str) -> bool:
    wanted = Requirement(dependency)
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def write_metadata(folder: Path, project: Mapping[str, Any]) -> None:
    """The dist-info of a project, as far as entry points and versions are read from it."""
    version = project.get("version", "0")
    info = folder / f"{project['name']}-{version}.dist-info"
    info.mkdir(parents=True)
    head = [("Metadata-Version", "2.1"), ("Name", project["name"]), ("Version", version)]
    needs = [("Requires-Dist", item) for item in project.get("dependencies", [])]
    (info / "METADATA").write_text("".join(f"{key}: {value}\n" for key, value in head + needs), encoding="utf-8")
    groups = project.get("entry-points", {}) | {"console_scripts": project.get("scripts", {})}
    lines = [
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in group.items()) for name, group in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def _installed(ref: str, commit: str, root: Path) -> Side:
    home = root.parent / "environment"
    places = {"base": str(home), "platbase": str(home)}
    python = Path(sysconfig.get_path("scripts", "venv", vars=places)) / f"python{sysconfig.get_config_var('EXE') or ''}"
    for command in (
        [sys.executable, "-m", "venv", str(home)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", str(root)],
    ):
        done = _run(command)
        if done.returncode:
            raise UsageError(f"{ref!r} cannot be installed: {_last_line(done.stderr)}")
    return Side(ref, commit, root, home, python)


def _git(repository: Path, *arguments: str, wrong: str = "") -> str:
    """What git prints; raises `UsageError` with `wrong`, or with git's own last line."""
    done = _run(["git", "-C", str(repository), *arguments])
    if done.returncode:
        raise UsageError(wrong or f"git {arguments[0]}: {_last_line(done.stderr)}")
    return done.stdout.strip()


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be run: {error}") from error


def _last_line(text: str) -> str:
    return (text.strip() or "it says nothing").splitlines()[-1]
