"""What latents stand for (SCIENCE.md 6): where they fire, on what, beside whom, and what to call them.

Contents: `codes` sparse latents in numpy · `statistics` · `top_images` · `class_distribution` · `neighbours`
· `heatmaps` · `embeddings` of top images · `scores` clarity, redundancy, polysemanticity · `vocabulary` ·
`labels` · `search` by words and by image · `map` on a plane · `vectors` at norm 1.
"""
