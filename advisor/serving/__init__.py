"""Load in, percentiles out: workloads, vLLM's scheduler, fleets, cascades and their metrics."""
