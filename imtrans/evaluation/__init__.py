"""Metrics of translated images over a data set: `evaluate` and `fcn_score`.

Each metric is a small class with `add` and `result`. Reports that people read belong in `imtrans.training.report`.
"""

from imtrans.evaluation.evaluate import evaluate as evaluate
from imtrans.evaluation.fcn_score import fcn_score as fcn_score
