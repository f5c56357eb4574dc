"""The side-by-side benchmarks: what is timed, that both sides do the same, and that a fault on one side stops them."""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import pytest
import torch

from polobench.core.errors import PoloError, Unavailable, UsageError
from polobench.objectives.preference import group_advantages
from polobench.registry import make

ROOT = Path(__file__).parents[1]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads a module of the repository's benchmarks, which are no package that is installed."""
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


class Peer:
    """Both sides on a clock that they move themselves: a step takes 2 s of ours and 3 s of theirs."""

    def __init__(self, alternation: Any, rounds: int, warmup: int, seed: int = 0) -> None:
        self.now, self.events = 0.0, []
        self.alternation = alternation.Alternation(
            lambda: self.take("ours", 2), rounds, warmup, seed, lambda: self.take("check", 100),
            lambda: self.take("round", 50), lambda: self.now,
        )  # fmt: skip

    def take(self, event: str, seconds: float) -> None:
        self.events.append(event)
        self.now += seconds

    def run(self) -> Peer:
        self.alternation.begin()
        for _ in range(self.alternation.total):
            self.take("theirs", 3)
            self.alternation.after_step()
        return self


def test_only_the_steps_are_timed(module):
    peer = Peer(module("peers.alternation"), rounds=20, warmup=4).run()
    assert peer.alternation.ours_seconds == [2] * 20
    assert peer.alternation.theirs_seconds == [3] * 20
    assert [peer.events.count(event) for event in ("ours", "theirs", "round", "check")] == [24, 24, 24, 1]
    assert peer.events[: peer.events.index("check")].count("theirs") == 4


def test_each_round_has_both_sides_in_an_order_drawn_by_the_seed(module):
    alternation = module("peers.alternation")
    steps = [event for event in Peer(alternation, 20, 4).run().events if event in ("ours", "theirs")]
    pairs = list(zip(steps[::2], steps[1::2]))
    assert set(pairs) == {("ours", "theirs"), ("theirs", "ours")}
    again, other = (Peer(alternation, 20, 4, seed).run().events for seed in (0, 1))
    assert again != other
    assert [event for event in again if event in ("ours", "theirs")] == steps


def test_the_ratio_is_the_median_within_the_rounds(module):
    found = measured(module, goal=1.3).row()
    assert (found["ratio"], found["rounds"], found["met"]) == (2.0, 3, True)
    assert (found["unit"], found["ours"], found["theirs"]) == ("steps/s", 0.5, 1 / 6)
    assert (found["low"], found["high"]) == (1.5, 3.0)


def measured(module: Any, goal: float, limit: tuple[float, ...] = ()) -> Any:
    make = module("peers.alternation").Comparison
    return make("DPO", "TRL", "steps", 1, goal, [1.0, 2.0, 4.0], [1.5, 6.0, 8.0], limit)


@pytest.mark.parametrize(
    ("goal", "limit", "met"),
    [(2.0, (), True), (2.1, (), False), (5.0, (0.75, 3.0, 3.0), True), (5.0, (0.5, 2.0, 2.0), False)],
    ids=["at the goal", "below it", "75 % of the limit of 2", "75 % of the limit of 3"],
)
def test_a_goal_is_met_at_its_ratio_or_near_the_limit(module, goal, limit, met):
    assert measured(module, goal, limit).row()["met"] == met


def test_the_table_shows_goal_limit_and_whether_it_is_met(module):
    main = module("peers.__main__")
    row = measured(module, 5.0, (0.75, 3.0, 3.0)).row()
    facts = {"date": "2026-11-28", "commit": "abcdef012", "versions": {"torch": "2"}, "cpu_model": "x", "cpu_count": 2}
    line = main.table([row], facts | {"load_average": [0.0, 1.0]}).splitlines()[2]
    assert " ".join(line.split()) == "| DPO | TRL | steps/s | 0.167 | 0.5 | 2 | [1.5, 3] | 5 times | 2 | yes | |"
    with pytest.raises(UsageError, match="unknown work 'sarsa'"):
        main.main(only="sarsa")


def test_what_cannot_run_here_is_a_line_of_the_table(module, monkeypatch, capsys, tmp_path):
    main, found = module("peers.__main__"), {"there": lambda rounds: measured(module, 2.0), "missing": _missing}
    monkeypatch.setattr(main, "works", lambda: found)
    main.main(rounds=2, as_json=tmp_path / "rows.json")
    last = " ".join(capsys.readouterr().out.splitlines()[3].split())
    assert last == "| missing | | | | | | | | | | not measured: no such library |"
    stored = json.loads((tmp_path / "rows.json").read_text())
    assert [(found["name"], found["met"]) for found in stored["rows"]] == [("there", True), ("missing", None)]
    assert stored["load_average"]
    assert stored["versions"]["torch"] == torch.__version__


def _missing(rounds: int | None) -> Any:
    raise Unavailable("no such library")


@pytest.mark.parametrize(("values", "met"), [([3.0, 4.0, 9.0], True), ([4.5], False)])
def test_a_ceiling_is_met_by_the_median(module, values, met):
    found = module("peers.alternation").Ceiling("start", "s", values, 4).row()
    assert (found["goal"], found["met"], found["ratio"]) == ("at most 4", met, None)
    assert (found["low"], found["high"]) == ((3.0, 9.0) if met else (None, None))


@pytest.mark.parametrize(("busy", "note"), [(0.2, ""), (1.3, "beside other work (1.3 cores)")])
def test_wall_seconds_say_whether_the_machine_was_idle(module, monkeypatch, busy, note):
    cost = module("peers.cost")
    monkeypatch.setattr(cost, "busy_cores", lambda: busy)
    seconds, said = cost._wall_seconds((sys.executable, "-c", "import time; time.sleep(0.1)"), rounds=2)
    assert said == note
    assert len(seconds) == 2
    assert min(seconds) >= 0.1
    with pytest.raises(PoloError, match="ZeroDivisionError"):
        cost._wall_seconds((sys.executable, "-c", "1 / 0"), rounds=1)


def test_seconds_are_those_of_a_function_without_what_it_calls(module):
    class Work:
        now = 0.0

        def outer(self) -> str:
            self.now += 1
            self.inner()
            self.now += 2
            return "done"

        def inner(self) -> None:
            self.now += 10
            raise KeyError

    work = Work()
    original = Work.outer
    watch = module("spent").spent({"outer": [(Work, "outer")], "inner": [(Work, "inner")]}, lambda: work.now)
    with watch as seconds:
        work.now += 100
        with pytest.raises(KeyError):
            work.outer()
    assert seconds == {"outer": 1, "inner": 10, "rest": 100}
    assert Work.outer is original


def test_the_limit_of_language_is_every_product_of_the_model(module):
    """Of the GPT-2 of 2 layers: 12 products of 64 x 64 per token and layer, attention, and 64 x 100 for a logit row."""
    limits, worlds = module("peers.limits"), module("peers.worlds")

    def multiplications(asked: Any) -> int:
        factors = limits.Products(worlds.TINY.load().model, [asked])._factors
        return sum(one.numel() * two.shape[-1] for one, two in factors)

    rows, columns, context, scored = 3, 5, 7, 2
    layers = 2 * (12 * 64 * 64 * rows * columns + 2 * rows * columns * context * 64)
    forward = layers + rows * scored * 64 * 100
    assert multiplications(limits.Pass(rows, columns, context, scored)) == forward
    assert multiplications(limits.Pass(rows, columns, context, scored, backward=True)) == 3 * forward


def test_the_passes_of_a_step_are_its_tokens(module):
    limits, tiny = module("peers.limits"), module("peers.worlds").TINY
    (pairs,) = limits.passes("dpo", tiny, 8)
    assert (pairs.rows, pairs.columns, pairs.scored, pairs.backward) == (16, 28, 16, True)
    *sampled, trained = limits.passes("grpo", tiny, 8)
    assert sampled == limits.passes("sampling", tiny, 8)
    assert sum(each.rows * each.columns for each in sampled) == 8 * 16 + 64 * 15
    assert (sampled[-1].context, trained.rows, trained.columns, trained.backward) == (31, 64, 31, True)


def test_the_matrix_is_all_cpu_seconds_of_all_its_cells(module, monkeypatch, tmp_path):
    today, asked = module("peers.today"), []
    tuned = tmp_path / "polobench" / "methods" / "tuned.toml"
    tuned.parent.mkdir(parents=True)
    tuned.write_text("".join(f'[{name}."{task}"]\ngamma = 0.5\n' for name in today.METHODS for task in today.MATRIX))
    monkeypatch.setattr(today, "old_code", lambda folder: tmp_path)

    def run(root, *cell):
        asked.append(cell)
        return {"whole_seconds": 2.0 if root == tmp_path else 1.0}

    monkeypatch.setattr(today, "run", run)
    found = today.compare_matrix(2).row()
    assert (found["ratio"], found["ours"], found["theirs"], found["met"]) == (2.0, 1 / 20, 1 / 40, True)
    assert len(asked) == 2 * 2 * 20
    assert [cell[:4] for cell in asked[:2]] == 2 * [("CartPole-v1", "reinforce", 40, 100_000)]
    assert {cell[5] for cell in asked} == {tmp_path / "polobench" / "tasks" / "checkpoints" / "sort-digits"}
    assert asked[0][4] == asked[1][4] | {"max_gradient_norm": 1e9}, "as it was by default"


def test_what_was_tuned_then_is_called_as_now(module):
    settings, tuned = module("peers.today").settings, {"dpo": {"t": {"refresh_updates": 8, "reference": "sampler"}}}
    assert settings(tuned, "t", "dpo", "then") == tuned["dpo"]["t"]
    assert settings(tuned, "t", "dpo", "now") == {"epochs": 8, "reference": "sampler", "max_gradient_norm": 1.0}
    tuned["dpo"]["t"]["refresh_updates"] = 1
    assert settings(tuned, "t", "dpo", "now")["reference"] == "checkpoint"


def test_learning_that_never_differs_is_said():
    learning = pytest.importorskip("benchmarks.peers.learning")
    found = learning.Scores("learning", "peer", [1.0, 1.0], [0.9, 0.9], 0.05, True).row()
    assert (found["met"], found["note"], found["low"]) == (False, "all runs alike", None)


@pytest.mark.parametrize("method", ["reinforce", "dpo", "grpo"])
def test_todays_settings_are_ours(module, method):
    today = module("peers.today")
    setting = today.SETTINGS[method]
    assert make(method, today.TASK, tuned=False, **setting.shared, **setting.now).hp.learning_rate < 0.01


def test_old_code_that_git_does_not_have_is_said(module, monkeypatch, tmp_path):
    today = module("peers.today")
    monkeypatch.setattr(today, "REVISION", "0" * 40)
    with pytest.raises(Unavailable, match="git does not have commit 0000"):
        today.compare("grpo-cartpole", "grpo", 2)


@pytest.mark.parametrize(
    ("ours", "both_ways", "met"),
    [
        ((0.99, 1.00, 1.01), True, True),
        ((1.09, 1.10, 1.11), True, False),
        ((1.09, 1.10, 1.11), False, True),
        ((0.89, 0.90, 0.91), False, False),
        ((0.60, 1.00, 1.40), True, False),
        ((0.99, 0.99, 0.99), True, True),
    ],
    ids=["equivalent", "better, where equality is asked for", "better", "behind", "too noisy to tell", "alike"],
)
def test_learning_is_judged_by_its_interval(ours, both_ways, met):
    learning = pytest.importorskip("benchmarks.peers.learning")
    found = learning.Scores("learning", "peer", ours, (0.99, 1.00, 1.01), 0.05, both_ways).row()
    assert (found["met"], found["interval_of"]) == (met, "difference")
    assert found["low"] < found["ours"] - found["theirs"] < found["high"]


def compared(module: Any, name: str) -> Any:
    pytest.importorskip("trl")
    alternation, sides = module("peers.alternation"), module("peers.trl_sides")

    def start(ours: Any, check: Any) -> Any:
        return alternation.Alternation(ours, 2, 3, 0, check)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return getattr(sides, f"compare_{name}")(start)


@pytest.mark.parametrize("name", ["dpo", "grpo", "rloo"])
def test_both_sides_do_the_same(module, name):
    found = compared(module, name)
    assert len(found.ours_seconds) == len(found.theirs_seconds) == 2


@pytest.mark.parametrize(
    ("name", "place", "fault"),
    [
        ("dpo", "OUR_SETTINGS", {"learning_rate": 2e-4}),
        ("dpo", "OUR_SETTINGS", {"learning_rate": 1e-4, "label_smoothing": 0.01}),
        ("grpo", "group_advantages", lambda returns, groups, divide_by_std: group_advantages(returns, groups, True)),
    ],
)
def test_a_fault_on_one_side_stops_the_comparison(module, monkeypatch, name, place, fault):
    pytest.importorskip("trl")
    monkeypatch.setattr(module("peers.trl_sides"), place, fault)
    with pytest.raises(PoloError, match="differ by"):
        compared(module, name)


@pytest.mark.parametrize("distinct", [64, 8])
def test_sampling_says_the_same_where_nothing_is_drawn(module, distinct):
    alternation, sides, worlds = (module(f"peers.{name}") for name in ("alternation", "generate_sides", "worlds"))
    found = sides.compare_sampling(
        lambda ours, check: alternation.Alternation(ours, 2, 1, 0, check), worlds.TINY, distinct
    )
    assert len(found.theirs_seconds) == 2
    assert found.amount == 64 * 16


def test_batches_agree_in_float64_and_a_difference_is_counted(module, monkeypatch):
    batches = module("generation_batch")
    monkeypatch.setattr(batches, "TYPES", ("float64",))
    rows = list(batches.differences(70, seed=1_000))
    assert [(row["batch"], row["differing"]) for row in rows] == [(7, 0), (1, 0)]
    tokens, log_probs = torch.tensor([[1, 2], [1, 3]]), torch.zeros(2, 2)
    found = batches._difference((tokens, log_probs + 0.5), (torch.tensor([[1, 2], [1, 4]]), log_probs))
    assert (found["differing"], found["share"], found["largest_log_prob_gap"]) == (1, 0.5, 0.5)


@pytest.mark.parametrize(
    ("returns", "wanted"),
    [((480, 500, 500), 1.0), ((500, 100, 500, 500), 3.0), ((500, 100, 500, 100), None), ((474, 474, 500), None)],
)
def test_a_solve_is_sustained_from_the_first_of_two_good_evaluations(returns, wanted):
    solve = pytest.importorskip("benchmarks.peers.solve")
    assert solve.sustained([float(at) for at in range(1, len(returns) + 1)], returns) == wanted


def test_the_time_to_a_solve_is_met_by_its_ratio_and_its_interval():
    solve = pytest.importorskip("benchmarks.peers.solve")
    steady = solve.Solves("solve", "peer", [1.0] * 10, [12.0] * 10).row()
    assert (steady["ratio"], steady["low"], steady["met"]) == (12.0, 12.0, True)
    unsure = solve.Solves("solve", "peer", [1.0] * 10, [1.0] * 9 + [111.0]).row()
    assert unsure["ratio"] == 12.0
    assert not unsure["met"]
