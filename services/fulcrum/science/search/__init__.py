"""Finding what to edit (SCIENCE.md 5).

candidates    the latents of one image by their estimated effect on the wanted class
minimal_sets  the fewest edits that change one image's answer, and their dose
group         the greedy search over a failure group, with backward elimination
group_images  HeldGroup: what evaluates and ranks for it, with every answer kept
"""
