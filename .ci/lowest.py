"""Prints the lowest declared version of each dependency, as pip's constraints: `python .ci/lowest.py > lowest.txt`.

torch is left as pip chooses it: an old one costs hundreds of MB, and other versions of it are other platforms anyway.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
for dependency in project["dependencies"]:
    name, lowest = re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<[\d.]+)?", dependency).groups()
    if name != "torch":
        print(f"{name}=={lowest}")
