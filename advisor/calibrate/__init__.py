"""Measurements of vLLM: read, fitted, scored, predicted, and made on one's own machine.

From rows to coefficients: `measurements` (the format; `importers` for others' result files) →
`conditions` (a row's configuration with its blanks filled, names by `checkpoints` and `machines`) →
`problem` (what is fitted to what) → `solver` → `fit` (the file of coefficients, by `fitted`).

From coefficients to a prediction: `forecast`, which lets the simulator serve the condition
(`served`) and puts the doubts around it: `uncertainty`, `spread`, and `levels` for a deployment's
own rows.

How good that is: `scoreboard` leaves out sources, models and accelerators, `ablation` terms of the
law; `score` tabulates errors and coverage beside two `baselines`; `publish` does it all again.

`bench` measures real vLLM: step by step on this machine, or a server from outside.
"""
