"""Training in several processes, on `torch.distributed`: process group, gradient sums, batch norm over all ranks.

Code that one process runs alone does not belong here.
"""
