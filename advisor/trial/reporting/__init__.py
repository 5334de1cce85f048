"""From a trial's records to its report: `measured` figures, a `verdict`, and `comparing` with
what was projected, put together by `assembly` into a `report`; `html_report` and `wording` show it.
"""
