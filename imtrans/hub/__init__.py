"""Saved networks: `Pretrained`, the base class of every network, and the way to the Hugging Face Hub and back.

The format of a saved network, its model card and the Hub client belong here. Foreign formats: `imtrans.convert`.
"""

from imtrans.hub.pretrained import Pretrained as Pretrained
