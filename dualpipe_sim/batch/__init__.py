"""Many points on processes or Dask, as rows that survive a crash; knows no pipeline.

Imports ``files``, ``plain_data`` and ``plugins``.
"""
