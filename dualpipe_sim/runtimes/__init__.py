"""A schedule as a real runtime issues it, one file a runtime. Imports ``order`` and ``base``."""
