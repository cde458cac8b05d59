"""Saved weights to networks: `load_pretrained` for our own format, converters for foreign checkpoints.

One module for each foreign format, and the safe reader of its files. The own format belongs in `imtrans.hub`.
"""

from imtrans.convert.auto import load_pretrained as load_pretrained
from imtrans.convert.junyanz import from_junyanz as from_junyanz
