r"""What each part of `flips` is worth, alone and beside the others: one thing changed at a time, at equal passes.

    python studies/strongest_ablation.py --models a=a/last.yaml,b=b/last.yaml --data camvid:PATH --split test \
        --size 96x128 --stride 6 --limit 12 --eps l2=1 --passes 50 --out runs/ablation-l2
    python studies/held_out.py --judge runs --against flips

Everything but the attacks is an option of ``studies/held_out.py``, which measures and judges.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import held_out  # the study beside this one

from segradius.attacks import Iterative, Method, Momentum, Settings, ShrinkingBudget, StepSize, make_attack, white_box
from segradius.threats import Threat


@white_box("phased_flips")
def phased_flips(threat: Threat, settings: Settings) -> Method:
    """The attack flips in phases at 2ε, 1.5ε and ε, each begun where the last one ended (red-ε of SEA)."""
    method = make_attack("flips", norm=threat.norm.name, eps=threat.eps, steps=settings.steps).method
    assert isinstance(method, Iterative)
    return ShrinkingBudget(method)


@white_box("constant_flips")
def constant_flips(threat: Threat, settings: Settings) -> Method:
    """The attack flips with steps of 20ε/T from first to last, the best constant length of the search."""
    method = make_attack("flips", norm=threat.norm.name, eps=threat.eps, steps=settings.steps).method
    assert isinstance(method, Iterative)
    return replace(method, step=Momentum(StepSize(per_eps=20.0), decay=0.5))


#: The attack, and what is otherwise than in it.
ARMS = (
    "flips",
    # objective
    "loss_ce=falling_pgd,loss=ce",
    "loss_masked_ce=falling_pgd,loss=masked_ce",
    "loss_js=falling_pgd,loss=js,weighting=still_correct(fooled=0.3)",
    "loss_margin_sigmoid=falling_pgd,loss=scaled_sigmoid,weighting=still_correct(fooled=0.3)",
    "unscaled_tau=falling_pgd,loss=flips,weighting=still_correct(fooled=0.3)",
    "soft_to_the_end=flips,tau_end=1",
    "sharp_from_the_start=flips,tau=0.1",
    # weights
    "fooled_as_others=flips,fooled=1",
    "fooled_left_out=flips,fooled=0",
    "memory_of_flipped=falling_pgd,loss=scaled_flips,weighting=region",
    "frontier_per_class=falling_pgd,loss=scaled_flips,weighting=frontier",
    "radius_weight=cr_flips,samples=0",
    "radius_weight_on_ce=falling_pgd,loss=ce,weighting=cr(samples=0)",
    # step
    "no_momentum=flips,decay=0",
    "more_momentum=flips,decay=0.9",
    "constant_steps=constant_flips",
    "paper_steps=pgd,loss=scaled_flips,weighting=still_correct(fooled=0.3)",
    "adaptive_steps=apgd,loss=scaled_flips,weighting=still_correct(fooled=0.3)",
    # start
    "uniform_start=flips,start=uniform",
    "phases=phased_flips",
    "two_starts=flips,restarts=2",
)

if __name__ == "__main__":
    sys.exit(held_out.main([*sys.argv[1:], "--attacks", *ARMS]))
