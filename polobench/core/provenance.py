"""Where a result comes from: versions, commit, the code that the method reaches, processor, threads and device."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_info

from polobench.core.kept import kept

PACKAGES = ("polobench", "torch", "numpy", "gymnasium", "transformers", "pandas", "scipy")
_CHECKOUT = Path(__file__).resolve().parents[2]
FINGERPRINTED = ("torch", "numpy", "gymnasium", "transformers")


def collect(code_hash: str, device: torch.device, threads: int) -> dict[str, Any]:
    """Provenance of a run, as plain data for the store; keys in docs/results-format.md."""
    facts: dict[str, Any] = {
        "code_hash": code_hash,
        "versions": {"python": platform.python_version()} | _versions(),
        "threads": threads,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        **_git(),
        **_machine(),
    }
    facts["platform_fingerprint"] = _platform_fingerprint(facts)
    return facts


def _platform_fingerprint(facts: dict[str, Any]) -> str:
    """A hash of everything outside our code that is known to change bits."""
    major_minor = facts["versions"]["python"].rpartition(".")[0]
    libraries = [facts["versions"][name] for name in FINGERPRINTED]
    parts = [facts[name] for name in ("os", "machine", "instruction_set", "blas", "device_name", "threads")]
    return hashlib.sha256(repr([major_minor, libraries, parts]).encode()).hexdigest()[:16]


def modules_of(cls: type) -> set[str]:
    """The modules of a class and its bases; the standard library's and those of the fingerprint left out."""
    return {base.__module__ for base in cls.__mro__ if not _is_fixed(base.__module__.partition(".")[0])}


def simulators_of(cls: type) -> set[str]:
    """The libraries that gymnasium's own modules of a class and its bases have loaded, such as mujoco."""
    ours = (sys.modules[base.__module__] for base in cls.__mro__ if base.__module__.startswith("gymnasium.envs."))
    loaded = (item.__name__ for module in ours for item in vars(module).values() if inspect.ismodule(item))
    return {top for top in (name.partition(".")[0] for name in loaded) if not _is_fixed(top)}


def _is_fixed(top: str) -> bool:
    """The platform's fingerprint stands for this library."""
    return top in FINGERPRINTED or top in sys.stdlib_module_names


@cache
def code_hash(*modules: str) -> str:
    """SHA-256 (16 hex digits) of every source that the modules reach by imports and that no version stands for.

    These are polobench's own, those of no distribution, and those of one that is installed to be edited. For a module
    of another distribution, its own source and the distribution's version stand beside these; so do the versions of
    those that a plug-in's sources import.
    """
    digest, reached = hashlib.sha256(), _reached(modules)
    for name in sorted(reached):
        digest.update(f"{name}\n".encode() + _source(name))
    plugins = {name for name in reached.union(modules) if name.partition(".")[0] != "polobench" and _is_open(name)}
    tops = {target.partition(".")[0] for name in plugins for target in _imports(name)}
    for version in sorted({_distribution_of(top) for top in tops if not _is_fixed(top)} - {"", "polobench"}):
        digest.update(version.encode())
    for name in modules:
        distribution = _distribution_of(name)
        if distribution != "polobench":
            digest.update(f"{name} {distribution}".encode() + _source(name))
    return digest.hexdigest()[:16]


def _reached(modules: tuple[str, ...]) -> set[str]:
    """What these import, directly or not, and whose source counts; without polobench itself, which only re-exports."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        imported = _imports(waiting.pop()) - found - {"polobench"}
        new = {target for target in imported if _is_open(target) and _path(target)}
        found |= new
        waiting += new
    return found | {name for name in modules if name.startswith("polobench.")}


def _is_open(module: str) -> bool:
    """No version stands for the module's source."""
    top = module.partition(".")[0]
    return top == "polobench" or not (_is_fixed(top) or (_distribution_of(top) and not _is_edited(top)))


@cache
def _is_edited(top: str) -> bool:
    """A distribution of this top-level module is installed to be edited (`pip install -e`)."""
    origins = [importlib.metadata.distribution(name).read_text("direct_url.json") for name in _distributions(top)]
    return any('"editable": true' in (origin or "") for origin in origins)


def _imports(module: str) -> set[str]:
    """What it imports, which is kept by its source: to parse them all takes longer than a small cell."""
    path, source = _path(module), _source(module)
    package = module if path and path.name == "__init__.py" else module.rpartition(".")[0]
    decided_by = [package, *(hashlib.sha256(text).hexdigest() for text in (source, _source(__name__)))]
    return kept("imports", decided_by, lambda: sorted(_imported(source, package)), set)


def _imported(source: bytes, package: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or package):
            dots = "." * node.level
            base = resolve_name(f"{dots}{node.module or ''}", package) if dots else str(node.module)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


@cache
def _path(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except Exception:  # a package of others, which it imports
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _source(module: str) -> bytes:
    path = _path(module)
    if path:
        return path.read_bytes()
    with suppress(OSError, TypeError, KeyError):
        return inspect.getsource(sys.modules[module]).encode()  # a class made in a session, say: its best-known source
    return b""


@cache
def _distribution_of(module: str) -> str:
    top = module.partition(".")[0]
    if top == "polobench":
        return "polobench"
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in _distributions(top))


@cache
def _distributions(top: str) -> list[str]:
    """Those that bring this module. One of its own name, whose files say so, spares a reading of all that is there."""
    with suppress(importlib.metadata.PackageNotFoundError):
        named = importlib.metadata.distribution(top)
        files = f"\n{named.read_text('RECORD') or ''}"
        if f"\n{top}/__init__.py," in files or f"\n{top}.py," in files:
            return [named.name]
    return sorted(set(_packages().get(top, [])))


_packages = cache(importlib.metadata.packages_distributions)


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@cache
def _git() -> dict[str, Any]:
    """Commit and dirty flag of the checkout that polobench runs from; None where it is no checkout."""
    if not (_CHECKOUT / ".git").exists():
        return {"commit": None, "dirty": None}
    changes = _git_says("status", "--porcelain", "--untracked-files=no")
    return {"commit": _git_says("rev-parse", "HEAD") or None, "dirty": None if changes is None else bool(changes)}


def _git_says(*command: str) -> str | None:
    with suppress(OSError, subprocess.SubprocessError):
        whole = ("git", "-C", str(_CHECKOUT), *command)
        return subprocess.run(whole, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return None


@cache
def _machine() -> dict[str, Any]:
    return {
        "os": platform.system(),
        "os_release": platform.release(),
        "machine": platform.machine(),
        "cpu_model": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "blas": _blas(),
    }


def _blas() -> str:
    """What numpy multiplies matrices with: name, version, and the processor whose kernels it chose."""
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    of_numpy = [library for library in found if "numpy" in library["filepath"]] or found  # scipy may bring its own
    parts = [of_numpy[0].get(key) for key in ("internal_api", "version", "architecture")] if of_numpy else []
    return " ".join(str(part) for part in parts if part) or "unknown"


def _cpu_model() -> str:
    with suppress(OSError):
        if named := re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return named[1].strip()
    return platform.processor() or "unknown"
