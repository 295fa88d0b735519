"""What a correction does to a data set, as numbers and a verdict; numpy and scipy only.

arrays          checks where data enters          flips         fixed, broken, moved, changed; PFR, NFR
mcnemar         exact paired tests                intervals     Agresti-Min, Clopper-Pearson
comparison      a paired comparison, whole        power         minimum detectable effect, images needed
bootstrap       paired, over images or clusters   multiplicity  Benjamini-Hochberg, -Yekutieli
groups          per class and group, the worst    slices        slice table, slice search on flips
image_sets      chosen slices, invariant lists
efficacy        E, G, Sp with preconditions       ripple        KL, drift, what else moved
calibration     ECE, Brier, log-loss              controls      against pushes of the same size
sweep           a correction at many gains
noise_floor     base against base, identity       interactions  NFR(A+B) - NFR(A) - NFR(B)
confusion       which answers became which        doses         dose-response, Pareto front
looks           counted looks, sealed confirm     stale         when a verdict is of the past
specification   what is asked, frozen by hash     gates, judge  pass, fail or undecided
verdict         the truth table                   inputs        what may be given
per_image       one row per image                 report        `validate`: all of it
"""
