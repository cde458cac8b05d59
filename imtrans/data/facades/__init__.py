"""Procedural facades: label maps and matching pictures, drawn from a seed.

The plan of a building, the drawing of its parts, and the synthetic data sets belong here.
"""

from imtrans.data.facades.datasets import LabFacades as LabFacades
from imtrans.data.facades.datasets import NightFacades as NightFacades
from imtrans.data.facades.datasets import ProceduralFacades as ProceduralFacades
from imtrans.data.facades.datasets import UnpairedFacades as UnpairedFacades
