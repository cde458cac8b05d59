"""imtrans: composable PyTorch layers for image-to-image translation."""

from imtrans.attention import SelfAttention as SelfAttention
from imtrans.blocks import ConvNormAct as ConvNormAct
from imtrans.blocks import DownBlock as DownBlock
from imtrans.blocks import ResidualBlock as ResidualBlock
from imtrans.blocks import UpBlock as UpBlock
from imtrans.data import PairedImages as PairedImages
from imtrans.facades import ProceduralFacades as ProceduralFacades
from imtrans.init import init_net as init_net
from imtrans.init import init_weights as init_weights
from imtrans.losses import GANLoss as GANLoss
from imtrans.losses import gradient_penalty as gradient_penalty
from imtrans.modes import running_as as running_as
from imtrans.patchgan import PatchDiscriminator as PatchDiscriminator
from imtrans.patchgan import PixelDiscriminator as PixelDiscriminator
from imtrans.pix2pix import Pix2Pix as Pix2Pix
from imtrans.pool import ImagePool as ImagePool
from imtrans.receptive_field import ReceptiveField as ReceptiveField
from imtrans.receptive_field import receptive_field as receptive_field
from imtrans.resnet import ResnetGenerator as ResnetGenerator
from imtrans.schedule import decay_factor as decay_factor
from imtrans.trainer import Trainer as Trainer
from imtrans.translate import translate as translate
from imtrans.translator import Translator as Translator
from imtrans.unet import UNetGenerator as UNetGenerator
from imtrans.version import __version__ as __version__
from imtrans.zoo import load_pretrained as load_pretrained
