"""Picture in, picture out: `translate`, `Translator` for many pictures, tiles for large ones.

What judges the result belongs in `imtrans.evaluation`.
"""

from imtrans.inference.translate import translate as translate
from imtrans.inference.translator import Translator as Translator
