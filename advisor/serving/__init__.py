"""Load in, percentiles out: workloads, vLLM's scheduler, fleets, cascades and their metrics.

The main path: `workload` (requests drawn from `arrivals` and `lengths`, or read by `traces`) →
`preparation` (a deployment under `engine` settings, as arrays) → `simulate` (a timeline) →
`metrics` (percentiles with intervals, stability).

`reference` is the scheduler's specification in plain Python, one step at a time; `kernel` does the
same in jumps, compiled, with `admission`, `blocks`, `heaps` and `layout` as its parts. `dispatch`
and `scaling` put replicas behind one door; `cascade`, of `tiers`, couples a small and a large tier
on one clock; `streaming` and `tally` take loads of any length; `capacity` asks how much load is too
much.
"""
