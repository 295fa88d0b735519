"""For `streamlit run frontend/app.py` in a checkout; the platform starts `python -m fulcrum_ui`."""

from fulcrum_ui.app import main

main()
