"""`Trainer`, and the parts of a training run: step, schedule, validation, checkpoints, run folder.

Everything that a run needs or writes belongs here. The computation of a method belongs in `imtrans.methods`.
"""

from imtrans.training.schedule import decay_factor as decay_factor
from imtrans.training.trainer import Trainer as Trainer
