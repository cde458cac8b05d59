"""`Trainer`, and the parts of a training run: step, schedule, validation, checkpoints, run folder.

Everything a run needs and leaves behind belongs here. What a method computes belongs in `imtrans.methods`.
"""

from imtrans.training.schedule import decay_factor as decay_factor
from imtrans.training.trainer import Trainer as Trainer
