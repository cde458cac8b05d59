"""Networks, their building blocks, weight initialisation and losses.

Everything here is a `torch.nn.Module` or a function on tensors. Files, data sets and training loops do not belong here.
"""

from imtrans.nn.attention import SelfAttention as SelfAttention
from imtrans.nn.blocks import ConvNormAct as ConvNormAct
from imtrans.nn.blocks import DownBlock as DownBlock
from imtrans.nn.blocks import ResidualBlock as ResidualBlock
from imtrans.nn.blocks import UpBlock as UpBlock
from imtrans.nn.huggan import HugGANGenerator as HugGANGenerator
from imtrans.nn.init import init_net as init_net
from imtrans.nn.init import init_weights as init_weights
from imtrans.nn.local_enhancer import LocalEnhancer as LocalEnhancer
from imtrans.nn.losses import GANLoss as GANLoss
from imtrans.nn.losses import feature_matching_loss as feature_matching_loss
from imtrans.nn.losses import gradient_penalty as gradient_penalty
from imtrans.nn.losses import mode_seeking_loss as mode_seeking_loss
from imtrans.nn.multiscale import MultiscaleDiscriminator as MultiscaleDiscriminator
from imtrans.nn.patchgan import PatchDiscriminator as PatchDiscriminator
from imtrans.nn.patchgan import PixelDiscriminator as PixelDiscriminator
from imtrans.nn.perceptual import PerceptualLoss as PerceptualLoss
from imtrans.nn.perceptual import perceptual_loss as perceptual_loss
from imtrans.nn.perceptual import vgg19 as vgg19
from imtrans.nn.resnet import ResnetGenerator as ResnetGenerator
from imtrans.nn.unet import UNetGenerator as UNetGenerator
