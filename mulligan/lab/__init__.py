"""The tutorial's statements as checks that run: what ``mulligan verify`` prints, and what ``tests/exact`` asserts.

Identity, Check   identity.py     a statement, its evidence, and the planted mistakes that it must refuse
chapter 1         counting.py     density.*: the joint by counting, and everything that the joint gives
chapter 2         likelihood.py   mle.*: maximum likelihood and the two directions of KL
chapter 4         surrogates.py   cd.*, em.*: contrastive divergence below, expectation-maximisation above
[E]               experiments.py  phenomena measured with their error, which are not equations
"""
