"""Receptive field of any module, traced operation by operation.

The rules of operations and the arithmetic of spans belong here. Code for particular networks does not.
"""

from imtrans.receptive_fields.trace import ReceptiveField as ReceptiveField
from imtrans.receptive_fields.trace import receptive_field as receptive_field
from imtrans.receptive_fields.trace import receptive_fields as receptive_fields
