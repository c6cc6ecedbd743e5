"""Worked examples from the literature: data and published results."""

import numpy as np

# Hanley and McNeil 1982, Radiology 143:29: 109 CT images, five ratings, 51 abnormal. Area and
# standard error by DeLong's method are printed in the manual of Stata's roctab: 0.8932 (0.0307),
# 95 % limits 0.83295 and 0.95339.
CT_NORMAL = (33, 6, 6, 11, 2)
CT_ABNORMAL = (3, 2, 2, 11, 33)

# Obuchowski 1997, Biometrics 53:567: MR angiography of 65 arteries in 36 patients by two readers;
# patient, 1 for a significant stenosis, per cent stenosis by each reader. Areas 0.9837 and 0.9852,
# standard errors 0.0108 and 0.0097; difference 0.0014, its standard error 0.0066, p = 0.8271.
MRA_ROWS = """
1 1 87 87  1 1 79 83  2 1 88 94  2 1 95 93  3 1 100 100  3 1 68 79  4 1 65 61  4 1 89 91
5 1 97 97  5 1 100 100  6 1 100 99  6 1 89 88  7 1 77 77  8 1 94 89  8 0 45 44  9 1 89 92
9 0 -11 -17  10 1 95 91  10 0 30 14  11 1 95 95  11 0 10 -122  12 1 100 100  12 0 19 -3
13 1 75 75  14 0 70 73  14 1 70 81  15 0 26 27  15 1 86 93  16 0 0 8  16 1 65 70  17 0 6 23
17 1 100 100  18 0 76 79  18 1 96 95  19 0 44 55  19 1 100 100  20 0 73 67  20 1 97 94
21 1 85 86  22 0 58 60  22 1 100 99  23 0 -2 -2  23 1 100 100  24 0 -3 -14  24 0 0 -11
25 0 47 -3  25 0 -94 -90  26 0 -16 17  26 0 75 85  27 0 5 -22  27 0 -1 -14  28 0 -6 -52
29 0 37 38  29 0 47 35  30 0 42 40  30 0 4 6  31 0 55 23  31 0 55 45  32 0 4 -87
32 0 -13 -65  33 0 49 24  33 0 35 9  34 0 53 66  35 0 2 -15  36 0 -48 -78
"""


def ct_ratings() -> tuple[np.ndarray, np.ndarray]:
    """Target int64[109] and rating 1 to 5, float64[109]."""
    ratings = [np.repeat(np.arange(1.0, 6.0), counts) for counts in (CT_NORMAL, CT_ABNORMAL)]
    return np.repeat([0, 1], [len(part) for part in ratings]), np.concatenate(ratings)


def mra_readings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patient int64[65] from 0, target int64[65], per cent stenosis float64[65, 2]."""
    rows = np.array(MRA_ROWS.split(), dtype=np.int64).reshape(-1, 4)
    return rows[:, 0] - 1, rows[:, 1], rows[:, 2:].astype(np.float64)
