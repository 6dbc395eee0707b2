"""How often a known drop passes: simulated test sets, judged by the drop's rule. Prints the table of docs/verdict.md.

python -m tests.coverage
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from tabulate import tabulate

from harness.judge import paired_tests

MARGIN, ALPHA, SETS = 0.005, 0.025, 5000
SIZES = (1000, 2200, 10_000)
DROPS = (0.0, 0.0025, 0.005, 0.0075, 0.01)
IMPROVED = (0.0, 0.003)  # share of images that only the variant answers rightly


def outcomes(images: int, drop: float, improved: float, sets: int = SETS, seed: int = 0) -> dict[str, float]:
    """Shares of PASS, FAIL and INCONCLUSIVE over simulated sets of a model with the given true shares."""
    rng = np.random.default_rng([seed, images, round(drop * 1e6), round(improved * 1e6)])
    drawn = rng.multinomial(images, [improved + drop, improved, 1 - 2 * improved - drop], sets)
    counts: Counter[str] = Counter()
    for (regressions, improvements), count in Counter(map(tuple, drawn[:, :2].tolist())).items():
        if paired_tests.max_drop(regressions, improvements, images, ALPHA) <= MARGIN:
            counts["PASS"] += count
        elif paired_tests.min_drop(regressions, improvements, images, ALPHA) > MARGIN:
            counts["FAIL"] += count
        else:
            counts["INCONCLUSIVE"] += count
    return {outcome: counts[outcome] / sets for outcome in ("PASS", "INCONCLUSIVE", "FAIL")}


if __name__ == "__main__":
    rows = [
        (f"{images:,}", f"{drop:.2%}", f"{improved:.1%}", *(f"{share:.1%}" for share in shares.values()))
        for images in SIZES
        for drop in DROPS
        for improved in IMPROVED
        if (shares := outcomes(images, drop, improved))
    ]
    headers = ("images", "true drop", "improvements", "PASS", "INCONCLUSIVE", "FAIL")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=["right"] * 6))
