"""Image files to batches of tensors: reading, decoding, data sets, the cache and the loader.

A data set returns dicts of tensors in [-1, 1]. What a network computes from them does not belong here.
"""

from imtrans.data.cityscapes import CityscapesImages as CityscapesImages
from imtrans.data.derivations import Blur as Blur
from imtrans.data.derivations import Edges as Edges
from imtrans.data.derivations import Grey as Grey
from imtrans.data.derivations import Holes as Holes
from imtrans.data.derivations import Jpeg as Jpeg
from imtrans.data.derivations import Lab as Lab
from imtrans.data.derivations import Noise as Noise
from imtrans.data.derivations import Small as Small
from imtrans.data.derived import DerivedPairs as DerivedPairs
from imtrans.data.derived import LabImages as LabImages
from imtrans.data.facades.datasets import LabFacades as LabFacades
from imtrans.data.facades.datasets import NightFacades as NightFacades
from imtrans.data.facades.datasets import ProceduralFacades as ProceduralFacades
from imtrans.data.facades.datasets import UnpairedFacades as UnpairedFacades
from imtrans.data.labels import colours_from_ids as colours_from_ids
from imtrans.data.labels import ids_from_colours as ids_from_colours
from imtrans.data.labels import one_hot as one_hot
from imtrans.data.paired import PairedImages as PairedImages
from imtrans.data.towns import ProceduralTowns as ProceduralTowns
from imtrans.data.unpaired import UnpairedImages as UnpairedImages
