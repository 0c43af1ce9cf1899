"""The identities of the tutorial, chapter by chapter: ``IDENTITIES`` of each file, in the form of ``mulligan.lab.identity``.

chapter 1   counting.py      density.*: the joint by counting, and everything that the joint gives; consistency.py, cause.py
chapter 2   likelihood.py    mle.*: maximum likelihood and the two directions of KL
chapter 3   energy.py        ebm.*: log Z and the gradient; matching.py: what is matched at the optimum
chapter 4   surrogates.py    cd.*, em.*: contrastive divergence below, EM above; contrastive.py, ascent.py
chapter 5   game.py          game.*: actor and critic, Wasserstein, Jensen-Shannon
chapter 6   noise_contrastive.py, efficiency.py  nce.*
chapter 7   langevin.py, halves.py, hamiltonian.py  langevin.*, mala.*, hmc.*
chapter 8   tempering.py, annealing.py  tempering.*, annealing.*
chapter 9   noising.py, diffusion.py, robust.py, denoising.py, parametrizations.py, pathwise.py  diffusion.*
chapter 10  relations.py, latent.py, strokes.py  relation.*
            schedules.py, waves.py: what the checks of chapters 9 and 10 share
[E]         phenomena.py     ``PHENOMENA``: measured with their error, not equations
"""
