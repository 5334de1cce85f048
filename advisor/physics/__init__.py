"""Closed forms: FLOPs, attention, KV cache, memory, and the time of one engine step.

A `deployment` (one model, one number format, one layout of accelerators) determines the `work` of a
step: what it reads, computes and exchanges. `step_time` turns work into seconds by the coefficients
that `rates` picks for the engine's generation; `step_cost` tabulates it for the simulator. `memory`
and `kv_cache` say whether it fits, and how many tokens it holds.
"""
