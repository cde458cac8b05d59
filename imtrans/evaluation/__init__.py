"""Metrics of translated pictures, over a data set: `evaluate`, `fcn_score`.

Each metric is a small class with `add` and `result`. What shows results to people belongs in `imtrans.training.report`.
"""

from imtrans.evaluation.evaluate import evaluate as evaluate
from imtrans.evaluation.fcn_score import fcn_score as fcn_score
