"""The frontend: a debugging bench in the browser. It speaks HTTP through `fulcrum.client` and nothing else.

`app` is the script that Streamlit runs for each visitor, `views/` has a module for each page, `parts/` what pages share,
`charts` the one look of all figures, `visitor` who is asking, `pictures` the routes for images.
"""
