"""The command `polobench data`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from polobench.cli.common import AsJson, show

LONGEST_TEXT = 600


def data(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A file, or hub:ID or hub:ID:SPLIT.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Model whose tokenizer counts: smollm2, a folder, a .gguf file or a hub id; characters by default."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how a preference file is understood.

    Prints its shape, prompts, pairs and lengths, three examples as a model will read them, and what is left out.
    Files are JSON Lines, JSON, CSV or Parquet, each also compressed by gzip. Exits with 2 if the file cannot be used.
    """
    from polobench.policies.pretrained import load, locate
    from polobench.tasks.preference_data import read_source
    from polobench.tasks.preference_summary import summary

    place = locate(model) if model else None
    read = read_source(source)
    found = summary(read, load(place) if place else None)
    show(as_json, found, _lines(found))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    shapes = "; ".join(f"{shape}: {count:,}" for shape, count in found["rows"].items())
    yield f"{found['data']} (digest {found['digest']})"
    yield f"rows by shape    {shapes}"
    yield f"prompts          {found['prompts']:,} distinct"
    yield f"groups           {found['groups']:,}, of which {found['duplicates']:,} repeat an earlier one"
    yield f"responses        {found['responses']:,}, in {found['pairs']:,} pairs; {found['ties']:,} more pairs tie"
    yield f"length           in {found['unit']}"
    for name, spread in found["lengths"].items():
        yield f"  {name:<20} " + ", ".join(f"{which} {value:,g}" for which, value in spread.items())
    yield f"left out         {'nothing' if not found['left_out'] else ''}".rstrip()
    for reason, count in found["left_out"].items():
        yield f"  {count:>8,}  {reason:.{LONGEST_TEXT}}"
    for example in found["examples"]:
        yield from ("", f"example {example['row']}", *_cut(example["prompt"]))
        for response in example["responses"]:
            yield from (f"-- score {response['score']:g}", *_cut(response["text"]))


def _cut(text: str) -> list[str]:
    more = "" if len(text) <= LONGEST_TEXT else f" ... ({len(text):,} characters)"
    return (text[:LONGEST_TEXT] + more).split("\n")
