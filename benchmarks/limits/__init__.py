"""Each kernel beside the fastest loop of the same instructions: its share of what the core can do.

The loops are in ``gsb_tvm/schedules/limits``. ``clock`` tells the frequency, ``kernels`` takes the
kernels out of a compiled network, ``timing`` runs all of them in turn.
"""
