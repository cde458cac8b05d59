"""Training in several processes, on `torch.distributed`: the process group, gradient sums, synchronised batch norm.

What one process does alone does not belong here.
"""
