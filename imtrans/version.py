"""The version of imtrans."""

__version__ = "0.1.0"
