"""What is trained, and its sizes; no seconds. Imports ``records``, ``order.placement`` and the ground."""
