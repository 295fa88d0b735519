"""What units answer to examples: the torch side of experts.

text    linear layers of a `transformers` model, causal or encoder
"""
