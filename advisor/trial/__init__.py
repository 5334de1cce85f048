"""Live trial: real load on real endpoints, and a verdict beside the projection.

The main path: `run` (a whole trial) → `setup` (two `endpoints` and the rows of `data`, of the
`sandbox` or the user's own) → `arms` (calibrate, project, send each arm's load, in a `session`) →
`reporting` (what was measured, and the verdict).

`projecting` measures both endpoints and plays the cascade from those pieces; `load` sends the
requests, `judging` scores their answers, `store` keeps their `records`; `watching` is what servers
and machine say meanwhile. A trial that was killed is gone on with (`resume`) or judged as it stands
(`standing`); `progress`, `exports` and `importing` are for the others who read or write records.
"""
