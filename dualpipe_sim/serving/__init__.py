"""What those share who answer others: worker processes that a clock watches, limits, and which files they may read."""
