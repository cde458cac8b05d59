"""Train the networks of a method on a folder of images, or without --data on procedural ones.

imtrans train pix2pix --data DIR --out runs/mine
imtrans train METHOD --help
"""

from imtrans.cli.train.command import add_arguments as add_arguments
