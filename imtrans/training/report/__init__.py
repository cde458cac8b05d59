"""Reports of a run: sample grids, and the gallery page. Numbers are computed elsewhere."""
