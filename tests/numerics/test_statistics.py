"""Intervals and paired comparisons against scipy.stats, by hand, and by what they promise."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from bhnbench.statistics import holm, paired_difference, summarize

RNG_SEED = 7


def test_a_summary_by_hand():
    summary = summarize([1.0, 2.0, 3.0])
    assert (summary.mean, summary.sd, summary.n) == (2.0, 1.0, 3)
    t = 0.95 / math.sqrt(2 * 0.975 * 0.025)  # t(p, 2) = (2 p - 1) / sqrt(2 p (1 - p))
    half_width = t / math.sqrt(3)
    assert summary.half_width == pytest.approx(half_width, rel=1e-12)
    assert summary.low == pytest.approx(2 - half_width, rel=1e-12)
    assert summary.high == pytest.approx(2 + half_width, rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_scipys(n):
    values = np.random.default_rng(RNG_SEED).normal(91, 2, n).tolist()
    summary = summarize(values)
    low, high = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (summary.low, summary.high) == pytest.approx((low, high), rel=1e-12)
    assert summary.sd == pytest.approx(np.std(values, ddof=1), rel=1e-12)


def test_one_value_has_no_interval_and_none_is_an_error():
    summary = summarize([3.0])
    assert (summary.mean, summary.n) == (3.0, 1)
    assert summary.sd is summary.low is summary.high is summary.half_width is None
    with pytest.raises(ValueError, match="at least one value"):
        summarize([])


def test_a_large_offset_costs_no_digits():
    assert summarize([1e9 + 1, 1e9 + 2, 1e9 + 3]).sd == 1.0


def test_equal_values_have_an_interval_of_no_width():
    summary = summarize([0.1] * 5)
    assert summary.sd == pytest.approx(0, abs=1e-16)
    assert summary.half_width == pytest.approx(0, abs=1e-15)


def test_the_interval_holds_the_mean_in_95_percent_of_samples():
    n_samples = 4000
    samples = np.random.default_rng(RNG_SEED).normal(size=(n_samples, 5)).tolist()
    summaries = [summarize(sample) for sample in samples]
    held = np.mean([s.low <= 0 <= s.high for s in summaries])
    standard_error = math.sqrt(0.95 * 0.05 / n_samples)
    assert held == pytest.approx(0.95, abs=4 * standard_error)


def test_the_paired_test_is_scipys_over_common_keys():
    rng = np.random.default_rng(RNG_SEED)
    a = dict(enumerate(rng.normal(1, 1, 8).tolist()))
    b = dict(enumerate(rng.normal(0, 1, 6).tolist(), start=2))
    comparison = paired_difference(a, b)
    common = range(2, 8)
    expected = stats.ttest_rel([a[i] for i in common], [b[i] for i in common])
    assert comparison is not None
    assert comparison.p_value == pytest.approx(expected.pvalue, rel=1e-10)
    interval = expected.confidence_interval(0.95)
    assert comparison.difference.low == pytest.approx(interval.low, rel=1e-10)
    assert comparison.difference.high == pytest.approx(interval.high, rel=1e-10)
    assert comparison.difference.n == 6


def test_p_is_below_005_exactly_when_the_interval_leaves_out_0():
    rng = np.random.default_rng(RNG_SEED)
    for shift in (0.3, 0.6, 0.9, 1.2) * 10:
        a, b = rng.normal(shift, 1, 6), rng.normal(0, 0.5, 6)
        comparison = paired_difference(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
        assert comparison is not None
        difference = comparison.difference
        assert (comparison.p_value < 0.05) == (difference.low > 0 or difference.high < 0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_steps_of_scores_are_equal_but_for_rounding(scale):
    """Three more of 398 images on each seed: their differences differ by 1e-14."""
    right = [387, 390, 390]
    a = {seed: scale * 100 * n / 398 for seed, n in enumerate(right)}
    b = {seed: scale * 100 * (n + 3) / 398 for seed, n in enumerate(right)}
    assert len({a[seed] - b[seed] for seed in a}) > 1
    found = paired_difference(a, b)
    assert (found.difference.sd, found.p_value) == (0, 2 / 2**3)
    nothing = paired_difference(a, {seed: score * (1 + 1e-15) for seed, score in a.items()})
    assert (nothing.difference.mean, nothing.p_value) == (0, 1)


def test_the_limits_of_a_paired_test():
    assert paired_difference({1: 1.0}, {2: 1.0}) is None
    one = paired_difference({1: 1.0, 2: 2.0}, {2: 5.0})
    assert one is not None
    assert (one.difference.mean, one.p_value) == (-3.0, None)
    same = paired_difference({1: 1.0, 2: 3.0}, {1: 1.0, 2: 3.0})
    assert same is not None
    assert same.p_value == 1.0
    always = paired_difference({1: 2.0, 2: 4.0}, {1: 1.0, 2: 3.0})
    assert always is not None
    assert always.p_value == 0.5  # two differences of one sign: what the sign test says


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_holm_lies_between_no_correction_and_bonferronis():
    p_values = np.random.default_rng(RNG_SEED).uniform(0, 0.2, 9)
    adjusted = np.array(holm(p_values.tolist()))
    assert (adjusted >= p_values).all()
    assert (adjusted <= np.minimum(1, 9 * p_values)).all()
    assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()


def test_importing_it_imports_neither_numpy_nor_scipy():
    code = "import bhnbench.statistics, sys; print({'numpy', 'scipy', 'torch'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
