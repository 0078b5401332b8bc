"""The version of this package, also of the rows and files that it writes."""

__version__ = "0.1.0"
