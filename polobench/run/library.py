"""Where a study is found by name: in the current folder, in `./studies`, or among those that ship with polobench.

Policies and batches lie beside the studies that use them, in `policies/` and `batches/`.
"""

from __future__ import annotations

from pathlib import Path

from polobench.core.errors import unknown

BUILT_IN = Path(__file__).parents[1] / "studies"
SUFFIX = ".toml"
_MARKS = {"study": b"[[grid]]", "tuning file": b"[[space]]"}


def find(given: Path | str, root: Path = Path(), built_in: Path = BUILT_IN) -> Path | None:
    """The file that a path or a name means, or None.

    Args:
        given: a path, or a name as in `quick` or `tuning/matrix`; `studies/quick.toml` means `quick`, too.
        root: the folder whose files, and those of whose `studies/`, win over the built-in ones.
        built_in: the folder of the built-in studies.
    """
    given = Path(given)
    name = given if given.suffix == SUFFIX else Path(f"{given}{SUFFIX}")
    own = name.relative_to("studies") if name.is_relative_to("studies") else name
    places = (root / given, root / name, root / "studies" / name, built_in / own)
    return next((path for path in places if path.exists() and not path.is_dir()), None)


def find_study(given: Path | str, kind: str = "study") -> Path:
    """The file that a path or a name means; the path itself where there is none, so that reading it says so.

    Raises:
        UsageError: a name that no file has; the error calls it a `kind`, "study" or "tuning file".
    """
    found = find(given)
    if found is None and Path(given).suffix != SUFFIX:
        names = [name for name, path in studies().items() if _MARKS[kind] in path.read_bytes()]
        raise unknown(kind, str(given), names, called="the path of a file")
    return found or Path(given)


def studies() -> dict[str, Path]:
    """Every study file by its name, each name as `find` reads it.

    Of the TOML files in the current folder, those that have a [[grid]] or [[space]] or take the name of another study.
    """
    found = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for folder in (BUILT_IN, Path("studies"))
        for path in folder.rglob(f"*{SUFFIX}")
        if path.is_file()
    }
    for path in filter(Path.is_file, Path().glob(f"*{SUFFIX}")):
        if path.stem in found or any(mark in path.read_bytes() for mark in _MARKS.values()):
            found[path.stem] = path
    return dict(sorted(found.items()))
