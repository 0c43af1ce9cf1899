"""Part 4: kernels that sample. Each is ``init``, ``noise``, ``move`` and declares the law that it keeps.

Path, at          path.py         π_β ∝ exp(β f) q: what tempering, annealing and every kernel is told to sample
Point             point.py        a position with its log density and its score
RandomWalk        metropolis.py   random-walk Metropolis, and the accept step that the adjusted kernels share
Langevin, …       langevin.py     unadjusted, Metropolis-adjusted, underdamped, on minibatches
HamiltonianMonteCarlo hmc.py      leapfrog trajectories of fixed or jittered length
NoUTurn           nuts.py         BlackJAX's NUTS behind the contract
warm_up, retune   adaptation.py   step size and diagonal scale from all chains together; reusable
space, Space      positions.py    positions as pytrees with bounds ↔ z in R^d, with the Jacobian
chance            chance.py       the normals and uniforms of one step
Gibbs, …          gibbs.py        single sites, sites moved by gradients, whole layers; states of q values
AnnealedImportance annealing.py   AIS forward and in reverse, simulated annealing, annealed Langevin
ParallelTempering tempering.py    chains at all β at once that exchange
tune_ladder, climb ladder.py      rungs of equal rejection; reusable
Ancestral, …      reverse.py    from noise back to data: DDPM, DDIM, Euler, Heun, multistep, predictor-corrector, SDE
Guided, Observed  guidance.py   classifier-free guidance, conditioning on an observation
solve, solve_adaptive ode.py  dx/dt = v(x, t) on a grid of times or by adaptive steps, with ∫ div v
ContinuousFlow    transported.py what a normal becomes under a learned velocity: log p and draws
EvenStates        reference.py    the flat law on states, a reference
SampledEnergy     sampled.py      independent draws of an energy-based model
Many, Thinned     many.py         many chains in one program; steps between two draws
"""
