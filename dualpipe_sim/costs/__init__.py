"""How long and how many bytes, never in what order across tasks: one cost model a file."""
