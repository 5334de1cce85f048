"""The app's screens: one Streamlit page a file; `sections` holds the parts that pages draw."""
