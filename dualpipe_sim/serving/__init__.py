"""What those share who answer others: worker processes that a clock watches, and limits of size and memory."""
