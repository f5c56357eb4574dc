"""Text from plug-ins, prompts and completions is shown, never obeyed: by Markdown, by HTML or by a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from synthetic import failed, failed_language, make_language, make_result, make_throughput, save_all, with_id

from polobench.analysis.collection import collect
from polobench.core.result import RunResult
from polobench.report.findings import Findings
from polobench.report.formatting import plain
from polobench.report.markdown import escape
from polobench.report.page import verdict_text, write_report

SHORT = {
    "script": "<script>alert(1)</script>",
    "cells": "| a | b |",
    "rule": "x\n|:--|:--|\n| a | b |\n",
    "fence": "```",
    "tildes": "~~~\nx",
    "image": "![x](y)",
    "link": "[x](javascript:alert(1)) <http://y>",
    "reference": "[x]: y\n\n[x]",
    "html": '<img src="y" onerror="z"><!-- <iframe>',
    "terminal": "\x1b[2J\x1b]0;title\x07\x9b31m\r\x08",
    "lines": "a\n\n# heading\n\n- item\n\n> quote\u2028\n    code\n",
    "long": "very " * 2_000 + "|",
    "surrogate": "a\ud800b",
    "direction": "a\u202eb\u200b\ufeff",
    "formula": "$\\frac{ $$x$$ \\( \\\\",
    "emphasis": "_x_ *y* **z** __w__ ~~v~~",
    "entity": "&lt;script&gt; &#60;b>",
    "empty": "",
}
ALL = " ".join(SHORT.values())
HARMLESS = "two words"


def store(folder: Path, text: str) -> Path:
    """Every kind of cell and every outcome, with that text wherever a plug-in or a model may put one."""
    runs = [make_result("ppo", seed=seed) for seed in range(2)]
    failed(runs[1], status="failed", reason=text)
    runs.append(make_result("ppo", seed=2, status="skipped", reason=text))
    runs.append(make_throughput("ppo"))
    runs += [make_language("dpo", seed=seed, prompts=3, pairs=6) for seed in range(2)]
    failed_language(runs[-1]).reason = text
    for run in runs:
        _put(run, text)
    return save_all(folder, *(with_id(run) for run in runs))


def _put(run: RunResult, text: str) -> None:
    run.method = run.label = run.task = run.unit = text
    run.hyperparameters |= {"a name": text, text: "a value"}
    run.provenance |= dict.fromkeys(("study", "commit", "cpu_model", "device_name", "os", "machine"), text)
    run.provenance["versions"] = {"polobench": text, text: "1"}
    for snapshot in run.snapshots.values():
        snapshot["notes"] = {text: 2}
        snapshot["measures"] |= {text: 1.0}
        for item in snapshot["completions"]:
            item["prompt"] = item["completion"] = text


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The Markdown of a store with hostile text, and of the same one with harmless text."""
    found = {}
    for name, text in (("hostile", ALL), ("harmless", HARMLESS)):
        folder = tmp_path_factory.mktemp(name)
        path = write_report(store(folder / "store", text), folder / "report")
        found[name] = "\n".join(item.read_text("utf-8") for item in sorted(path.parent.rglob("*.md")))
    return found


def tokens(text: str) -> list[Token]:
    """All of them, those inside of lines too."""
    blocks = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").parse(text)
    return [token for block in blocks for token in (block, *(block.children or []))]


def shapes(text: str) -> list[tuple[int, ...]]:
    """The number of cells in each row of each table, counted in the source: a reader drops cells that are too many."""
    tables = re.findall(r"(?:^\|.*\n)+", text + "\n", flags=re.M)
    return [tuple(len(re.findall(r"(?<!\\)\|", row)) - 1 for row in table.splitlines()) for table in tables]


def test_no_foreign_html_image_or_link(reports: dict[str, str]) -> None:
    found = tokens(reports["hostile"])
    assert [token.content for token in found if token.type.startswith("html_")] == []
    images = [str(token.attrs["src"]) for token in found if token.type == "image"]
    assert images
    assert all(re.fullmatch(r"(\.\./)?figures/[\w./-]+\.png", source) for source in images)
    links = [str(token.attrs["href"]) for token in found if token.type == "link_open"]
    assert links
    assert all(re.fullmatch(r"((\.\./)?(tasks/|tables/)?[\w-]+\.(md|csv))?(#[a-z0-9-]+)?", link) for link in links)
    harmless = [token for token in tokens(reports["harmless"]) if token.type == "link_open"]
    assert len(links) == len(harmless)


def test_tables_and_headings_are_those_of_harmless_text(reports: dict[str, str]) -> None:
    assert shapes(reports["hostile"]) == shapes(reports["harmless"])
    assert all(len(set(table)) == 1 for table in shapes(reports["hostile"]))
    for kind in (
        "table_open",
        "tr_open",
        "td_open",
        "th_open",
        "heading_open",
        "fence",
        "code_block",
        "image",
        "s_open",
    ):
        counts = {name: sum(token.type == kind for token in tokens(text)) for name, text in reports.items()}
        assert counts["hostile"] == counts["harmless"], kind


def test_no_control_characters(reports: dict[str, str]) -> None:
    assert [sign for sign in reports["hostile"] if not sign.isprintable() and sign != "\n"] == []


def test_terminal_text_moves_no_cursor(tmp_path: Path) -> None:
    text = verdict_text(Findings(collect(store(tmp_path, ALL))))
    assert [sign for sign in text if not sign.isprintable() and sign != "\n"] == []


@pytest.mark.parametrize("name", sorted(SHORT))
def test_escaped_text_is_shown_as_it_is(name: str) -> None:
    escaped, shown = escape(SHORT[name]), plain(SHORT[name], 2_000)
    table = tokens(f"| a | b |\n|---|---|\n| {escaped} | c |\n")
    assert sum(token.type == "td_open" for token in table) == 2
    for line in (escaped, f"- {escaped}", f"**{escaped}x**", f"![{escaped}](figures/a.png)"):
        allowed = {"text", "inline", "strong_open", "strong_close", "image", "paragraph_open", "paragraph_close"}
        allowed |= {f"{kind}_{end}" for kind in ("bullet_list", "list_item") for end in ("open", "close")}
        assert {token.type for token in tokens(line)} <= allowed, line
    texts = [token.content for token in tokens(f"x {escaped}") if token.type == "text"]
    assert "".join(texts).removeprefix("x").strip() == shown
