"""What a trial should measure: pieces measured beforehand, and the cascade played from them.

`calibration` measures each endpoint alone and in company (`service`), `rehearsal` the machine at
the load's own rate. `expectation` makes of both the `projection` of every arm, by playing the
`cascade`; where all of it shares one machine, on `shared_cores` (`works`, `together`).
"""
