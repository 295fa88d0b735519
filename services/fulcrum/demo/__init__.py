"""The demo world: drawn scenes with planted failures, a tiny CLIP that reads, and the story told with them.

world          scenes; world_objects, world_paint: how they are drawn
world_dataset  the scenes as a data set on disk
recipe         trains the shipped model and its SAE (recipe_pool, recipe_clip, recipe_measure, recipe_sae)
shipped        where the shipped weights are
served         the questions and jobs of the story, asked through the SDK
findings       its numbers, from what the platform kept
story          from an attacked image to a proven correction
pictures, report  the story as one HTML file
"""
