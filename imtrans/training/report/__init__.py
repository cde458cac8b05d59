"""Reports of a run: sample grids, and the gallery page.

Pages are files that open from disk. Numbers are computed elsewhere.
"""
