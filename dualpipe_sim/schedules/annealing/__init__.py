"""How an order is found by walks over partitions, placements and turns: what `searched` and searches share.

Imports ``order``, and no schedule: schedules import it.
"""
