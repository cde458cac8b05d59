"""imtrans: composable PyTorch layers for image-to-image translation.

A public name is imported from its package when it is first used, so that `import imtrans` is fast.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from imtrans.version import __version__ as __version__

if TYPE_CHECKING:
    from imtrans.convert import load_pretrained as load_pretrained
    from imtrans.convert import published_weights as published_weights
    from imtrans.data import CityscapesImages as CityscapesImages
    from imtrans.data import DerivedPairs as DerivedPairs
    from imtrans.data import LabFacades as LabFacades
    from imtrans.data import LabImages as LabImages
    from imtrans.data import NightFacades as NightFacades
    from imtrans.data import PairedImages as PairedImages
    from imtrans.data import ProceduralFacades as ProceduralFacades
    from imtrans.data import ProceduralTowns as ProceduralTowns
    from imtrans.data import UnpairedFacades as UnpairedFacades
    from imtrans.data import UnpairedImages as UnpairedImages
    from imtrans.data import colours_from_ids as colours_from_ids
    from imtrans.data import ids_from_colours as ids_from_colours
    from imtrans.data import one_hot as one_hot
    from imtrans.evaluation import evaluate as evaluate
    from imtrans.evaluation import fcn_score as fcn_score
    from imtrans.evaluation import frechet_distance as frechet_distance
    from imtrans.evaluation import sliced_wasserstein as sliced_wasserstein
    from imtrans.inference import Translator as Translator
    from imtrans.inference import export_onnx as export_onnx
    from imtrans.inference import translate as translate
    from imtrans.inference import uncertainty as uncertainty
    from imtrans.inference import uncertainty_map as uncertainty_map
    from imtrans.methods import Colorization as Colorization
    from imtrans.methods import CycleGAN as CycleGAN
    from imtrans.methods import ImagePool as ImagePool
    from imtrans.methods import Inpainting as Inpainting
    from imtrans.methods import Pix2Pix as Pix2Pix
    from imtrans.methods import recipe as recipe
    from imtrans.modes import running_as as running_as
    from imtrans.nn import ConvNormAct as ConvNormAct
    from imtrans.nn import DownBlock as DownBlock
    from imtrans.nn import GANLoss as GANLoss
    from imtrans.nn import HugGANGenerator as HugGANGenerator
    from imtrans.nn import LocalEnhancer as LocalEnhancer
    from imtrans.nn import MultiscaleDiscriminator as MultiscaleDiscriminator
    from imtrans.nn import PatchDiscriminator as PatchDiscriminator
    from imtrans.nn import PixelDiscriminator as PixelDiscriminator
    from imtrans.nn import ResidualBlock as ResidualBlock
    from imtrans.nn import ResnetGenerator as ResnetGenerator
    from imtrans.nn import SelfAttention as SelfAttention
    from imtrans.nn import UNetGenerator as UNetGenerator
    from imtrans.nn import UpBlock as UpBlock
    from imtrans.nn import feature_matching_loss as feature_matching_loss
    from imtrans.nn import gradient_penalty as gradient_penalty
    from imtrans.nn import init_net as init_net
    from imtrans.nn import init_weights as init_weights
    from imtrans.nn import mode_seeking_loss as mode_seeking_loss
    from imtrans.nn import perceptual_loss as perceptual_loss
    from imtrans.receptive_fields import ReceptiveField as ReceptiveField
    from imtrans.receptive_fields import receptive_field as receptive_field
    from imtrans.training import Trainer as Trainer
    from imtrans.training import decay_factor as decay_factor
else:  # type checkers must not see __getattr__: it would allow any name
    _NAMES = {
        "convert": "load_pretrained published_weights",
        "data": "CityscapesImages DerivedPairs LabFacades LabImages NightFacades PairedImages ProceduralFacades "
        "ProceduralTowns UnpairedFacades UnpairedImages colours_from_ids ids_from_colours one_hot",
        "evaluation": "evaluate fcn_score frechet_distance sliced_wasserstein",
        "inference": "Translator export_onnx translate uncertainty uncertainty_map",
        "methods": "Colorization CycleGAN ImagePool Inpainting Pix2Pix recipe",
        "modes": "running_as",
        "nn": "ConvNormAct DownBlock GANLoss HugGANGenerator LocalEnhancer MultiscaleDiscriminator "
        "PatchDiscriminator PixelDiscriminator ResidualBlock ResnetGenerator SelfAttention UNetGenerator UpBlock "
        "feature_matching_loss gradient_penalty init_net init_weights mode_seeking_loss perceptual_loss",
        "receptive_fields": "ReceptiveField receptive_field",
        "training": "Trainer decay_factor",
    }
    _PACKAGE_OF = {name: package for package, names in _NAMES.items() for name in names.split()}
    __all__ = [*_PACKAGE_OF]

    def __getattr__(name):
        if name in _PACKAGE_OF:
            globals()[name] = value = getattr(import_module(f"imtrans.{_PACKAGE_OF[name]}"), name)
            return value
        if not name.startswith("_") and find_spec(f"imtrans.{name}"):
            return import_module(f"imtrans.{name}")
        raise AttributeError(f"module 'imtrans' has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
