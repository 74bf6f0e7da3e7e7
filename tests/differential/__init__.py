"""A differential tester: random programs, run by every route the engine has, and compared.

    python -m tests.differential --seconds 600 --seed 0

A program is up to twenty calls of tape's operators on a few leaves (``program.py``). It is drawn
so that each value can be computed and no choice hangs on rounding (``builder.py``, ``draw*.py``),
and its result is a sum of products of values. What is right is said by a reference that shares
nothing with the engine: forward mode on numbers that carry their derivatives to third order
(``jets.py``, ``reference.py``). PyTorch, where it is installed, says it a second time
(``pytorch.py``).

    eager.py      backward(), grad(), create_graph to third order, no_grad, plain arrays
    static.py     the graph built node by node to second order; frozen (``freeze.py``) on one set
                  of numbers and run on another, when it must be the eager run to the last bit
    mutation.py   arrays changed between forward and backward by every way there is
                  (``changes.py``): the right gradient, or an error that speaks of "in place"

Not compared: entries where the reference is infinite or NaN, numbers beyond the bounds in
``answers.py``, and second and third order in less than float64. Programs that mismatch are
shortened (``shrink.py``) and printed as Python that can be run.
"""
