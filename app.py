"""The Streamlit app: its screens and the scenario they share. Start it with `advisor app`."""

from pathlib import Path

import streamlit as st

from advisor import screens
from advisor.screens import scenario

FOLDER = Path(screens.__file__).parent

st.set_page_config(page_title="Advisor", page_icon=FOLDER / "icon.png", layout="wide")

page = st.navigation(
    [
        st.Page(FOLDER / "recommendation.py", title="Recommendation", default=True),
        st.Page(FOLDER / "task.py", title="Task"),
        st.Page(FOLDER / "explore.py", title="Explore"),
        st.Page(FOLDER / "evidence.py", title="Evidence"),
    ],
    position="top",
)
page.run()
scenario.write_link()
