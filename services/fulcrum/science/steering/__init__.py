"""Steering: edits of latents, their effect on the answer, and the evidence about it.

edits          EditPlan, apply_edits: many images, many different edits, one change of the activations
scopes         which tokens a scope means, and whether they reach the output
conditions     when an edit acts
forward        steered_embeddings: before and after from one call
diagnostics    did the edit do what it says
controls       would any push of this size have done it
dose_response  the answer over a grid of gains, and where it flips
"""
