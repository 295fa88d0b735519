"""Training of sparse autoencoders from a stream of activations."""
