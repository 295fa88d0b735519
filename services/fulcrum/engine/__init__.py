"""Models at work: residency, prefix cache, and science composed into answers.

local          LocalEngine, the `InferenceEngine` in this process
byte_lru       the bounded cache under residency and prefixes
batching       rows of many requests in one forward, on one device thread
batch_queue    who is next
forwards       one forward over rows of several requests: how many, and which bits
device_memory  which errors mean that memory is full
batched_tower  a split tower behind the batcher
encoding       images and texts behind the batcher
scopes         who asks, until when, and what it cost
residents      loaded once, in the background, kept under a budget of bytes
residency      models, towers, SAEs and class heads, loaded once
references     names from outside to what the engine loads
sae_artifacts  uploaded SAEs as folders
image_batches  data set images as preprocessed batches of one fixed size
indexing       builds the sparse latent index of a data set
describing     what latents stand for, from an index
dataset_runs   a correction over a data set: affected images only, and the naive twin
plan_rows      the rows that plans change: one prefix for all, full batches of the suffix
suffix_queue   edited activations until a batch is full
dataset_controls  matched latents and random directions over a data set
validation_parts  what a validation computes, in parts under keys of all that determines them
sweeping       a correction at many gains
group_search   the search over a failure group on top of an index
validating     a correction on a split: gates, controls, verdict
training       an SAE from the activations of a data set
"""
