"""What `spread` multiplies by. Written by `python -m benchmarks.lanes.learn_spread`; not changed by hand."""

from __future__ import annotations

import numpy as np

LINES, BOUNDS = np.split(
    np.array([  # the middle, the logarithm of the width above and below; the least and the most seen
        [0.01045, -0.008517, -0.02281, 1.0, 1.0],  # always
        [-0.0154, 0.2979, 0.4518, -3.127, 0.72],  # own errors above
        [0.01074, 0.2593, 0.224, -3.15, 0.9087],  # own errors below
        [0.06343, 0.113, 0.2099, -0.3443, 0.2505],  # middle of own errors
        [0.0007726, 0.1103, 0.4212, -3.507, 1.29],  # short moves
        [0.1456, 1.378, -2.758, 0.0, 0.6088],  # rise, 10 s beside 30 s
        [-0.01241, -0.05123, 0.4636, 0.0, 0.6317],  # rise, 30 s beside 90 s
        [0.01119, 0.2212, -0.1145, 0.0, 0.7553],  # rise, 90 s beside 5 min
        [0.006957, -0.163, -0.1426, 0.0, 1.485],  # rise, 5 min beside 1 h
        [-0.1566, 0.09568, 0.266, 0.0, 2.152],  # fall, 10 s beside 30 s
        [0.03917, 0.2137, -0.7204, 0.0, 2.293],  # fall, 30 s beside 90 s
        [-0.03982, -0.03828, 0.09822, 0.0, 2.604],  # fall, 90 s beside 5 min
        [-0.005256, -0.02221, 0.08248, 0.0, 1.5],  # fall, 5 min beside 1 h
        [-0.0004165, 0.03575, 0.04305, 0.0, 1.5],  # above the least minute
        [0.01729, 0.2167, 0.2627, 0.0, 1.5],  # below the most
        [0.0008813, 0.1921, 0.06097, 0.0, 1.0],  # below two hours' most
        [-0.005324, -0.01494, 0.5421, 0.0004235, 1.0],  # young
        [-0.007342, -0.39, 0.02835, 0.1298, 4.336],  # counted
        [-0.0003952, 0.1701, -0.03001, -2.303, 1.846],  # ends at
    ]).T,
    (3,),
)  # fmt: skip
SHAPE = np.array([-2.451, -1.164, -0.5217, 0.0, 0.6296, 1.221, 2.158])
