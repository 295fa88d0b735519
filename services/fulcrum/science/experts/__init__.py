"""Units that know a concept (EXPERTS.md): neurons of language models and CLIP towers, and SAE latents.

ap            AP and AUROC of dense responses       sparse_ap     the same where most responses are zero
expert_sets   by tau and by top-k, similarities     structure     clusters, ARI, dendrogram order, map
alignment     with human similarity, ceilings       maps          what experts are set to, damped or transported by
"""
