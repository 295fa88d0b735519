"""A training by several processes of this machine, each of them `python -m fulcrum.worker.ranks`.

`together` starts them, hears them and ends them; `lines` is what is said in between.
"""
