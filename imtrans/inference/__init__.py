"""Inference: `translate` for one image or batch, `Translator` for many images, tiles for large images, ONNX files.

Metrics of the results belong in `imtrans.evaluation`.
"""

from imtrans.inference.export_onnx import export_onnx as export_onnx
from imtrans.inference.translate import translate as translate
from imtrans.inference.translator import Translator as Translator
from imtrans.inference.uncertainty import Uncertainty as Uncertainty
from imtrans.inference.uncertainty import uncertainty as uncertainty
from imtrans.inference.uncertainty import uncertainty_map as uncertainty_map
