"""Vision and text towers of OpenCLIP, split at a hook point.

`loading.load_model` gives a `LoadedModel`; `towers.split_tower` cuts its vision tower (`split.SplitTower`);
`classes` turns prompts into class embeddings and embeddings into logits; `images` and `preprocessing` lead
from a file's bytes to the model's input and back to the place of a patch.
"""
