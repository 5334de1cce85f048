"""Micro-benchmarks of real vLLM on this machine, or of a running server, and what they teach."""
