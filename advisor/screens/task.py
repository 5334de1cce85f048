"""Task: what the answer must do, from an example, a file or the form."""

from __future__ import annotations

import streamlit as st

from advisor.errors import InputError
from advisor.screens import scenario
from advisor.screens.formatting import count, plain
from advisor.screens.sections import examples, task_form
from advisor.task import TaskProfile

MAX_MB = 2
DRAFT, SHOWN, REVISION = "task.draft", "task.shown", "task.revision"


def read_own() -> None:
    """A file or pasted text in place of an example."""
    with st.popover("Upload or paste YAML", icon=":material/upload:"):
        file = st.file_uploader(
            f"Task profile (YAML or JSON, at most {MAX_MB} MB)",
            type=["yaml", "yml", "json"],
            key="task.file",
            max_upload_size=MAX_MB,
        )
        text = st.text_area("Or its text", key="task.text", height=160, persist_state="session")
        if st.button("Use it", key="task.use"):
            try:
                content = file.getvalue().decode() if file is not None else text
                scenario.start_from(None, TaskProfile.from_yaml(content))
                st.rerun()
            except UnicodeDecodeError:
                st.markdown(":red[The file is not UTF-8 text.]")
            except InputError as error:
                st.markdown(f":red[{plain(str(error))}]")


def synchronised() -> task_form.Draft:
    """The form's draft; filled anew where the scenario was changed elsewhere."""
    task = scenario.current()
    if st.session_state.get(SHOWN) != task:
        st.session_state[DRAFT] = task_form.draft_of(task)
        st.session_state[SHOWN] = task
        st.session_state[REVISION] = st.session_state.get(REVISION, 0) + 1
    draft: task_form.Draft = st.session_state[DRAFT]
    return draft


st.title("Task")
st.caption(
    "What goes in and out, how good, how fast, how many and under what rules. Changes apply as "
    "soon as they are valid."
)
with st.container(horizontal=True, vertical_alignment="bottom"):
    examples.pick("Start from an example")
    read_own()
    st.download_button(
        "Download YAML",
        lambda: scenario.to_yaml(scenario.current()),
        file_name="task.yaml",
        mime="application/yaml",
        on_click="ignore",
        icon=":material/download:",
    )
verdict = st.container()
draft = synchronised()
_, problems = task_form.checked(draft)
edited = task_form.draw(draft, problems, revision=st.session_state[REVISION])
if edited != draft:
    st.session_state[DRAFT] = edited
    task, problems = task_form.checked(edited)
    if task is not None and task != st.session_state[SHOWN]:
        st.session_state[SHOWN] = task
        scenario.change(task)
    st.rerun()
with verdict:
    if problems:
        fields = f"{len(problems)} field{'s' if len(problems) > 1 else ''}"
        st.warning(
            f"Not valid yet ({fields} marked below). The recommendation keeps to the last valid "
            "version.",
            icon=":material/edit:",
        )
    else:
        traffic = scenario.current().traffic
        st.caption(
            f"{count(traffic.requests_per_month)} requests a month; "
            f"{count(traffic.mean_rate_per_s)} a second on average, "
            f"{count(traffic.peak_rate_per_s)} in the busiest hour."
        )
with st.expander("As YAML"):
    st.code(scenario.to_yaml(scenario.current()), language="yaml")
