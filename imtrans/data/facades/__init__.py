"""Procedural facades: label maps and matching pictures, drawn from a seed.

The plan of a building, the drawing of its parts and the data set belong here.
"""

from imtrans.data.facades.datasets import ProceduralFacades as ProceduralFacades
