"""Methods: networks, losses and one training step each, with optimizers and image pool.

A new method is one file here. The training loop around the step belongs in `imtrans.training`.
"""

from imtrans.methods.base import Method as Method
from imtrans.methods.base import Translation as Translation
from imtrans.methods.colorization import Colorization as Colorization
from imtrans.methods.cyclegan import CycleGAN as CycleGAN
from imtrans.methods.image_pool import ImagePool as ImagePool
from imtrans.methods.inpainting import Inpainting as Inpainting
from imtrans.methods.pix2pix import Pix2Pix as Pix2Pix
from imtrans.methods.recipes import Recipe as Recipe
from imtrans.methods.recipes import recipe as recipe
