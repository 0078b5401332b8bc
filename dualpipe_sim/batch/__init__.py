"""Many points on processes or Dask, as rows that survive a crash; knows no pipeline.

Imports only ``base``.
"""
