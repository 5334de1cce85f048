"""The Streamlit app: its screens and the scenario they share. Start it with `advisor app`."""

from pathlib import Path

import streamlit as st

from advisor import screens
from advisor.errors import AdvisorError
from advisor.screens import scenario
from advisor.screens.formatting import plain

FOLDER = Path(screens.__file__).parent

st.set_page_config(page_title="Advisor", page_icon=FOLDER / "icon.png", layout="wide")
st.logo(FOLDER / "icon.png", size="small")

page = st.navigation(
    [
        st.Page(FOLDER / "recommendation.py", title="Recommendation", default=True),
        st.Page(FOLDER / "task.py", title="Task"),
        st.Page(FOLDER / "load.py", title="Load"),
        st.Page(FOLDER / "trial.py", title="Live trial"),
        st.Page(FOLDER / "explore.py", title="Explore"),
        st.Page(FOLDER / "quality.py", title="Quality"),
        st.Page(FOLDER / "calibration.py", title="Calibration"),
        st.Page(FOLDER / "evidence.py", title="Evidence"),
    ],
    position="top",
)
try:
    page.run()
except AdvisorError as error:
    st.error(plain(str(error)))
scenario.write_link()
