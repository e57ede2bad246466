"""Sparse coding: problems, solvers, coders and the learner of dictionaries.

    Lasso | Sparse -> solver -> Solution                 one signal (problems.py, solvers/)
    coder(dictionary, signals) -> Solution               many signals: what detectors use
    learn(key, state, signals, coder) -> state           a dictionary from minibatches

Coders: `coder.py` (lasso, linear), `channels.py` (a small dictionary for each channel of a map),
`exemplars.py` (a dictionary of training signals). `certificate.py` says how good a code is.
"""
