"""Published rates of acceptance and trees, as figures."""

import numpy as np

# Infini-AI-Lab/Sequoia, demo: P(the b-th sibling is accepted), the first nine of 32. Its best tree
# for 4 nodes is a chain, which yields 2.291432 tokens per round. Not sorted: see the last.
SEQUOIA = np.array(
  [0.634183, 0.107946, 0.056972, 0.022489, 0.01949, 0.014993, 0.004498, 0.002999, 0.011994]
)

# hmarkc/parallel-prompt-decoding: P(rank r at depth d), recovered from its published trees.
PPD_7B = np.array(
  [
    [0.48335, 0.14342, 0.0736, 0.0454, 0.03087, 0.02155, 0.01658, 0.01323, 0.00932, 0.00845],
    [0.26256, 0.14561, 0.08114, 0.0576, 0.04283, 0.0323, 0.0257, 0.02152, 0.01903, 0.0155],
    [0.16413, 0.11756, 0.08092, 0.05784, 0.04586, 0.03672, 0.03128, 0.02317, 0.02372, 0.01789],
  ]
)
PPD_13B = np.array(
  [
    [0.51814, 0.1446, 0.07037, 0.03814, 0.02484, 0.0195, 0.01298, 0.01199, 0.0087, 0.0082],
    [0.29409, 0.14593, 0.08727, 0.05767, 0.03858, 0.03237, 0.02511, 0.02046, 0.0155, 0.01339],
    [0.17942, 0.12567, 0.08334, 0.06261, 0.04561, 0, 0, 0, 0, 0],
  ]
)
# Its trees of size 60 for the 13B model, by state: the ranks of each candidate's path. Behind each
# stand 3 prompt tokens in state 1, and 2 in the others.
PPD_13B_60 = {
  1: "0 1 2 3 4 5 6 7 8 9",
  2: "0 00 1 01 2 02 10 3 03 4 11 20 04 5 05 06 6 12 7 30",
  3: "0 00 1 01 2 02 10 3 03 000 4 11 20 04 5 001 05 010 06 6",
}
