"""Metrics of translated images over a data set: `evaluate`, `fcn_score`, `frechet_distance`, `sliced_wasserstein`.

Each metric is a small class with `add` and `result`. Reports that people read belong in `imtrans.training.report`.
"""

from imtrans.evaluation.evaluate import evaluate as evaluate
from imtrans.evaluation.fcn_score import fcn_score as fcn_score
from imtrans.evaluation.frechet_distance import frechet_distance as frechet_distance
from imtrans.evaluation.sliced_wasserstein import sliced_wasserstein as sliced_wasserstein
