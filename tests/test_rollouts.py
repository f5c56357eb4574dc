"""Rollouts of control: where an episode ends, what is masked, and how the rows are split."""

from __future__ import annotations

import checks


def test_the_column_of_an_autoreset_is_masked_and_never_charged():
    checks.check_ghosts_are_masked()


def test_a_time_limit_ends_an_episode():
    checks.check_time_limit_ends_an_episode()


def test_every_epoch_sees_every_row_once():
    checks.check_minibatches()
