"""`receptive_field(module)`: the receptive field of any module, traced operation by operation.

The rule of each operation and the arithmetic of spans belong here. Knowledge of our own networks does not.
"""

from imtrans.receptive_fields.trace import ReceptiveField as ReceptiveField
from imtrans.receptive_fields.trace import receptive_field as receptive_field
