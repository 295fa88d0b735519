"""What units answer to examples, and what happens when they are made to answer otherwise.

text           linear layers of language models          clip     units of both towers of an OpenCLIP model
unit_steering  experts set, damped or transported        causal   what a causal model says then, and at what cost
"""
