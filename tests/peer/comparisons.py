"""Reference numbers of `src/statistics`, by scipy, statsmodels and rliable: the unit tests there hold them.

    python comparisons.py --rliable DIR

DIR: a checkout of google-research/rliable. Its functions are run as they are; where its package cannot be imported for want of `arch`
or `absl`, the files are read without these imports. Its bootstrap draws at random: the unit tests go through all draws in its place.
Needs: pip install numpy scipy statsmodels
"""

import argparse
import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import scipy.stats
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower

A = np.array([1.0, 2.0, 4.0, 7.0])
B = np.array([5.0, 9.0, 8.0])
C = np.array([1.5, 2.5, 3.0, 9.0])
# Cells of two methods, three and four runs in each; one run diverged.
X = np.array([[0.9, 0.5], [0.7, 0.8], [0.6, 0.8]])
Y = np.array([[0.8, 0.4], [1.0, 0.8], [0.0, 0.3], [0.7, 0.2]])


def functions(path, names):
    """Functions and assignments of a file whose imports cannot all be met."""
    tree = ast.parse(path.read_text())
    name = lambda node: getattr(node, "name", None) or getattr(getattr(node, "targets", [None])[0], "id", None)
    tree.body = [node for node in tree.body if name(node) in names]
    scope = {"np": np, "scipy": scipy, "Float": float}
    exec(compile(tree, str(path), "exec"), scope)
    return SimpleNamespace(**scope)


def say(what, *values):
    print(f"{what:60}", *(repr(float(v)) for v in np.ravel(values)))


def comparisons():
    welch = stats.ttest_ind(A, B, equal_var=False, alternative="less")
    say("Welch: t, freedom, p below", welch.statistic, welch.df, welch.pvalue)
    say("Welch: interval", *stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.95))
    paired = stats.ttest_rel(A, C, alternative="less")
    say("paired: t, freedom, p below", paired.statistic, paired.df, paired.pvalue)
    say("paired: p above", stats.ttest_rel(A, C, alternative="greater").pvalue)
    say("paired: two-sided p", stats.ttest_rel(A, C).pvalue)
    say("paired: interval", *stats.ttest_rel(A, C).confidence_interval(0.95))
    margin = 2.0
    within = max(stats.ttest_rel(A + margin, C, alternative="greater").pvalue, stats.ttest_rel(A - margin, C, alternative="less").pvalue)
    say("paired: two one-sided tests, margin 2", within)
    margin = 0.2
    d = A - C
    t = lambda shift: (abs(d.mean()) - shift) / (d.std(ddof=1) / len(d) ** 0.5)
    beyond = stats.t.sf(t(margin), len(d) - 1) + stats.t.cdf(-t(-margin), len(d) - 1)
    say("paired: apart by more than 0.2", beyond)
    say("t quantile", stats.t.ppf(0.975, 2))


def multiple():
    p = [0.01, 0.04, 0.03, 0.005, 0.5, 0.9]
    say("Holm", *multipletests(p, method="holm")[1])


def power():
    for t, freedom, noncentrality in [(2.0, 3, 1.0), (4.3, 2, 6.0), (31.6, 2, 50.0), (1.7, 30.5, 0.0), (2.1, 4.6, 90.0)]:
        say(f"noncentral t above: {t}, {freedom}, {noncentrality}", stats.nct.sf(t, freedom, noncentrality))
    one, two = TTestPower(), TTestIndPower()
    say("power, paired, effect 1.2 deviations, 5 pairs", one.power(1.2, 5, 0.05, alternative="larger"))
    say("power, two samples of 5", two.power(1.2, 5, 0.05, alternative="larger"))
    # `solve_power` stops some 1e-8 beside the root.
    root = lambda of: optimize.brentq(lambda effect: of.power(effect, 3, 0.05, alternative="larger") - 0.8, 1.0, 5.0, xtol=1e-14, rtol=1e-14)
    say("detectable, 3 pairs", root(one))
    say("detectable, two samples of 3", root(two))
    say("pairs needed for 0.7 at 5 % and 1 %", *(one.solve_power(0.7, alpha=a, power=0.8, alternative="larger") for a in (0.05, 0.01)))
    say("a sample needed for 0.7 at 5 % and 1 %", *(two.solve_power(0.7, alpha=a, power=0.8, alternative="larger") for a in (0.05, 0.01)))


def equivalence():
    """Power of two one-sided tests of 7 pairs, difference 0 and 0.3, deviation 1, margin 1.5: simulated and by the sum."""
    n, margin, draws = 7, 1.5, 400_000
    rng = np.random.default_rng(0)
    for difference in (0.0, 0.3):
        x = rng.normal(difference, 1.0, (draws, n))
        mean, error = x.mean(1), x.std(1, ddof=1) / n**0.5
        critical = stats.t.ppf(0.95, n - 1)
        seen = np.mean(((mean + margin) / error > critical) & ((mean - margin) / error < -critical))
        say(f"power of two one-sided tests, difference {difference}, simulated", seen)
        summed = sum(stats.nct.sf(critical, n - 1, (margin + s * difference) * n**0.5) for s in (1, -1)) - 1
        say("  the sum of both powers less 1", summed)


def claim(name, a, b, is_open):
    """A comparison of two series as a report words it: all from logarithms."""
    a, b = np.log(a), np.log(b)
    d = a - b
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    say(f"{name}: ratio and interval", *np.exp([d.mean(), interval.low, interval.high]))
    say("  p of paired and of Welch's test", stats.ttest_rel(a, b, alternative="less").pvalue,
        stats.ttest_ind(a, b, equal_var=False, alternative="less").pvalue)
    if not is_open:
        return
    solve = lambda **known: TTestPower().solve_power(alpha=0.05, power=0.8, alternative="larger", **known)
    say("  detectable ratio, seeds needed", np.exp(-solve(nobs=len(d)) * d.std(ddof=1)),
        np.ceil(solve(effect_size=abs(d.mean()) / d.std(ddof=1))))


def claims():
    claim("apart", [10.0, 10.2, 10.1], [12.0, 12.1, 12.2], is_open=False)
    claim("open", [10.0, 14.0, 12.0], [10.1, 13.9, 12.2], is_open=True)
    claim("narrow", [10.0, 11.0, 12.0], [10.5, 11.8, 13.6], is_open=True)


def across(rliable):
    metrics = functions(rliable / "rliable" / "metrics.py", {"aggregate_iqm", "probability_of_improvement"})
    library = functions(rliable / "rliable" / "library.py", {"run_score_deviation", "score_distributions"})
    say("interquartile means", metrics.aggregate_iqm(X), metrics.aggregate_iqm(Y))
    say("probability of improvement", metrics.probability_of_improvement(X, Y))
    thresholds = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    say("profile of X", *library.score_distributions(X, thresholds))
    say("profile of Y", *library.score_distributions(Y, thresholds))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rliable", type=Path, required=True)
    args = parser.parse_args()
    for part in (comparisons, multiple, power, equivalence, claims):
        print(f"-- {part.__name__}")
        part()
    print("-- across")
    across(args.rliable)


if __name__ == "__main__":
    main()
