"""How a zero-bubble order is found for given times and a memory limit: the parts that adaptive schedules share.

Imports ``order``, and no schedule: schedules import it.
"""
