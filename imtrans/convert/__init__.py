"""Networks from saved weights: `load_pretrained`, names of published weights, a module for each foreign format.

The format of imtrans itself belongs in `imtrans.hub`. ``python -m imtrans.convert`` is the command.
"""

from imtrans.convert.auto import load_pretrained as load_pretrained
from imtrans.convert.junyanz import from_junyanz as from_junyanz
from imtrans.convert.junyanz import load_reference as load_reference
from imtrans.convert.junyanz import reference_names as reference_names
from imtrans.convert.published import PublishedWeights as PublishedWeights
from imtrans.convert.published import published_weights as published_weights
from imtrans.convert.vgg import load_vgg19 as load_vgg19
