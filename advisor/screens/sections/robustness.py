"""How far the answer stands: what it is sensitive to, and what it rests on."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from advisor.decide.recommendation import Recommendation, Sensitivity
from advisor.screens import answer_charts
from advisor.screens.formatting import plain, usd


def sensitivities(answer: Recommendation) -> None:
    """Cost a month as inputs change one by one, and where the choice changes with them."""
    if not answer.sensitivities:
        return
    st.header("What the answer is sensitive to")
    base = answer.projection.cost_usd_per_month.value if answer.projection else None
    priced = [one for one in answer.sensitivities if one.cost_usd_per_month is not None]
    if base is not None and priced:
        st.vega_lite_chart(
            spec=answer_charts.tornado(
                [
                    {
                        "input": f"{one.input}: {one.change}",
                        "cost": one.cost_usd_per_month,
                        "choice": answer_charts.CHOICES[one.changes_choice],
                        "what": one.what,
                    }
                    for one in priced
                ],
                base=base,
            ),
            alt="Cost a month as one input changes: "
            + "; ".join(f"{one.input} {one.change}: {_cost(one)}" for one in priced),
        )
    folded = base is not None and bool(priced)
    with st.expander("As a table") if folded else st.container():
        st.table(
            pd.DataFrame(
                {
                    "Input": plain(one.input),
                    "Change": plain(one.change),
                    "Then": plain(one.what),
                    "Cost a month": plain(_cost(one)),
                    "Choice": "changes" if one.changes_choice else "stays",
                }
                for one in answer.sensitivities
            ).set_index("Input")
        )


def _cost(one: Sensitivity) -> str:
    return "–" if one.cost_usd_per_month is None else usd(one.cost_usd_per_month)


def provenance(answer: Recommendation) -> None:
    """Versions and dates of the data."""
    rests = answer.provenance
    with st.expander("What this rests on: versions and dates"):
        st.table(
            pd.DataFrame(
                {
                    "Data": [
                        "Advisor",
                        "Catalogue",
                        "GPU prices",
                        "Hosted prices",
                        "Calibration",
                        "Seed of the simulation",
                        "Assumptions of your own",
                    ],
                    "Version": [
                        plain(text)
                        for text in (
                            rests.advisor,
                            rests.catalogue_as_of,
                            rests.prices_as_of,
                            rests.hosted_prices,
                            rests.calibration,
                            str(rests.seed),
                            ", ".join(f"{k} = {v:g}" for k, v in rests.assumptions.items())
                            or "none",
                        )
                    ],
                }
            ).set_index("Data")
        )
        for note in rests.notes:
            st.caption(plain(note))
