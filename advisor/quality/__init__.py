"""Quality: published evidence, labels, hard gates, confidence, and certified thresholds.

Before there are labels: `prior` expects a score from published ones (`mixed_model`, `covariates`),
and `escalation` what a hybrid makes of two models.

With a log of labelled answers: `metrics` and `scoring` say which are right (SQL by execution:
`sql_execution`), `gates` what a program can refuse (`schema_gate`, `sql_gate`, `rules`,
`patterns`), `confidence` how sure the model was (`tokens`, and `calibration` to a probability);
`labels` updates what was expected; `evaluate` puts it together: `reliability`, `policies`,
`log_checks`.

The guarantee: `threshold` certifies an escalation threshold from paired rows (`pairs`,
`paired_losses`, `bounds`, `two_ends`); `conformal` needs no labels of the large model; `prerouter`
decides from the request alone; `sequential` watches a rate for ever.
"""
