"""What a correction does to a data set, as numbers and a verdict: numpy and scipy only, arrays in, frozen values out.

arrays         checks where data enters            flips          fixed, broken, moved, changed; NFR, PFR
mcnemar        exact paired tests                  intervals      Agresti-Min, Clopper-Pearson, simultaneous
power          minimum detectable effect           bootstrap      paired, over images or duplicate clusters
multiplicity   Benjamini-Hochberg, -Yekutieli      groups         per class and group, worst group
efficacy       E, G, Sp with their preconditions   ripple         KL, drift, what else moved
calibration    ECE, Brier, log-loss                controls       against pushes of the same size
noise_floor    base against base, identity         slices         slice table and slice search
interactions   NFR(A+B) - NFR(A) - NFR(B)          confusion      which answers turned into which
looks          counted looks, one sealed look      specification  what was asked, frozen with a hash
gates          pass, fail or undecided             verdict        the truth table
per_image      one row per image                   report         `validate`: all of the above
stale          when a verdict is of the past       doses          dose-response with harm crossing, Pareto front
"""
