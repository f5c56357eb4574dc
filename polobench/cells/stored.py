"""The files that some cells read: tensors in a safetensors file, whose metadata say what they are."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from polobench.core.errors import UsageError, ending_in_one_line, first_line

_ABOUT = "polobench"


def path_of(folder: Path | str, *names: str) -> Path:
    """Where the file of these names lies, the task's first."""
    return Path(folder) / (re.sub(r"[^A-Za-z0-9.-]+", "-", "-".join(names)) + ".safetensors")


@contextmanager
def reading(
    path: Path, what: str, command: str, **named: str
) -> Iterator[tuple[dict[str, Tensor], dict[str, Any], str]]:
    """The tensors of a stored file, what it says of itself, and its SHA-256.

    Args:
        path: of the file.
        what: it should be.
        command: makes it.
        named: what it should say of itself.

    Raises:
        UsageError: there is no such file, it is another one, or the block cannot read it.
    """
    try:
        content = path.read_bytes()
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
        found = {key: about[key] for key in named}
        if found != named:
            of, wanted = (", ".join(map(repr, texts.values())) for texts in (found, named))
            raise UsageError(f"{str(path)!r} is the {what} of {of}, not of {wanted}")
        yield tensors, about, hashlib.sha256(content).hexdigest()
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"no {what} at {str(path)!r} (`{command}` makes it)") from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(path)!r} is no {what}: {first_line(error)}") from error


def write(path: Path, tensors: dict[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Store tensors and what is said of them; raises `UsageError` where the folder cannot be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(save(tensors, {_ABOUT: json.dumps(about, sort_keys=True)}))
    except OSError as error:
        raise UsageError(f"folder {str(path.parent)!r} cannot be written to: {error.strerror}") from error
    return path


def make_files(command: str, make: Callable[[str, Path], Sequence[Path]]) -> None:
    """The command that makes files into a folder, those of each named task by `make`."""
    with ending_in_one_line():
        if len(sys.argv) < 3:
            raise UsageError(f"usage: {command} FOLDER TASK...")
        for task in sys.argv[2:]:
            for path in make(task, Path(sys.argv[1])):
                print(f"{path}: {path.stat().st_size:,} bytes")
