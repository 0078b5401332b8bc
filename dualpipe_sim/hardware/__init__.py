"""What a run runs on: GPUs, clusters, links and what collectives achieve. Imports ``records`` and below."""
