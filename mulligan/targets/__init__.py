"""Part 1: laws known exactly, which can be drawn from and whose log density is a formula.

Gaussian         gaussian.py    and its marginals, conditionals and entropy
GaussianMixture  mixture.py     the same verbs, component by component
Histogram        counting.py    the joint by counting, and everything that the joint gives
KnownLaw, Holes  known.py       the contract of a named law: log_prob, sample, holes, entropy
GaussianHoles …  shapes.py      Gaussians in a ring or a grid, checkerboard, pinwheel, banana, funnel, Rosenbrock
DoubleWell       wells.py       two wells of unequal depth
Moons, Rings …   curves.py      curves in the plane blurred by Gaussian noise
Ising, Potts …   discrete.py    small lattices and the restricted Boltzmann machine, enumerated
TransferMatrix   transfer.py    log Z and exact draws of Ising lattices up to ten sites wide
Schedule, Walk … noising.py    x_t = α x_0 + σ e: schedules of noise, their jumps and bridges
NoisedMixture …  noised.py     the laws under noise, with score, posterior mean and covariance
law, draw_table  named.py       the laws by name, and tables drawn from them
"""
