"""The command `imtrans`: one module for each subcommand, which has its flags and runs it.

What can be used from Python belongs in the other packages. The training examples use `imtrans.cli.train`, too.
"""

from imtrans.cli.command import main as main
