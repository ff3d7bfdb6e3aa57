"""Records what ppi-python says of drawn data: ``python record.py > oracle.json``.

It wants an environment of its own with ``ppi-python==0.2.3`` (MIT): the package pulls in numba,
pandas, statsmodels and a downloader (gdown), too much for the tests' lock.
"""

from __future__ import annotations

import json
from importlib.metadata import version

import numpy as np
from ppi_py import ppi_mean_ci, ppi_mean_pointestimate


def case(seed: int, labelled: int, others: int, noise: float) -> dict[str, object]:
    random = np.random.default_rng(seed)
    truth = random.random(labelled + others)
    labels = (random.random(labelled + others) < truth).astype(float)
    judged = np.clip(truth * 0.8 + 0.15 + noise * random.standard_normal(len(truth)), 0, 1)
    labels, judged = np.round(labels, 6), np.round(judged, 6)
    y, f, g = labels[:labelled], judged[:labelled], judged[labelled:]
    found = {}
    for name, power in (("0", 0.0), ("0.5", 0.5), ("1", 1.0), ("tuned", None)):
        low, high = ppi_mean_ci(y, f, g, alpha=0.05, lam=power)
        estimate = ppi_mean_pointestimate(y, f, g, lam=power)
        found[name] = [float(np.ravel(v)[0]) for v in (estimate, low, high)]
    return {
        "labels": y.tolist(),
        "judged": f.tolist(),
        "others": g.tolist(),
        "answers": found,
    }


if __name__ == "__main__":
    cases = [case(1, 60, 300, 0.05), case(2, 120, 200, 0.3), case(3, 40, 400, 0.02)]
    print(json.dumps({"ppi-python": version("ppi-python"), "cases": cases}))
