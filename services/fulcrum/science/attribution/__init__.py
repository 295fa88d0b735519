"""Attributing an output of the model to the latents of one image (SCIENCE.md 3).

targets               ZeroShotHead and the differentiable outputs: cosine, logit, log_prob, margin
active                the active latents, at tokens that reach the output
scores                what a method returns: per latent and per token
act_x_grad            one backward pass, first order
integrated_gradients  complete along a path which keeps error and b_dec
ablation              the ground truth for one latent
measured              measured effects beside scores: rank agreement, joint effect, interaction share
methods               METHODS, all by name
"""
