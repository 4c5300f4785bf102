"""segradius: measure, attack, certify and harden image-segmentation models, guided by the certified radius.

An attack maximises an objective (a loss times a weighting of the pixels) inside a threat by steps; the radius says
where to look; models or targets answer; an evaluation runs it over data; a report tells it. Images are (N, B, H, W) in
[0, 1], not normalised, labels (N, H, W) int64 with 255 for void, and ε has the unit of the images.

Attack your own network:

    import segradius as sr

    model = sr.wrap(my_network, normalisation="imagenet")    # any module or callable that gives logits
    attack = sr.attacks.pgd(norm="l2", eps=1.5)              # or sr.make_attack("pgd", …); "cr_pgd" is the guided form
    result = attack(model, images, labels, seed=0)           # .adversarial, .prediction, .fooled, .ledger

Compose an attack of your own:

    objective = sr.Objective(sr.objectives.JensenShannon(), sr.objectives.StillCorrect())
    threat = sr.make_threat("linf", 4 / 255)
    step = sr.attacks.Momentum(sr.StepSize(per_eps=2.5))
    mine = sr.Attack("mine", sr.Iterative(objective, threat, step, steps=50))
    guided = sr.attacks.guided(mine, samples=8)              # the same, weighted by the certified radius

Over a whole data set, with intervals, as ``segradius attack`` does it:

    found = sr.evaluate(model, (images, labels), ["pgd", "fgsm"], eps=1.5)
    print(found)                                             # tables; found.to_pandas(), found.save("folder")

Where to find what:

    sr.attacks        every attack as a function, the two loops, steps, strategies
    sr.objectives     losses, weightings, goals, CertifiedRadiusLoss for other libraries' attacks
    sr.threats        l1, l2, l∞: projections, steepest directions, random starts
    sr.radius         the certified radius of each pixel, CLEVER's and the exact one
    sr.gradients      gradients estimated from scores, and directions to ask along
    sr.certification  votes, tests and certifiers: what no change below a length can turn
    sr.models         wrap, load_model, normalisation, sliding windows, cards
    sr.speed          sped_up: cheaper passes in loops, verdicts by the model itself
    sr.targets        open_target: ONNX files and servers, which give scores only
    sr.transferred    a model or target for which adversarial images are made on another network
    sr.data           open_data: Cityscapes, ADE20K, VOC, CamVid, folders, lists, COCO's JSON, Parquet, torch data sets
    sr.metrics        PixAcc, MIoU, intervals over images, paired differences
    sr.training       adversarial training and the paper's defences
    sr.evaluation     runs over data that go on from where they were stopped; sr.report tells them
    sr.errors         what is raised on purpose; InputError for a value, a file or a pixel that is not as expected

On the command line ``segradius attack | certify | train | evaluate | compare | list``. Names are loaded when first
used, so that ``import segradius`` and ``segradius --help`` are instant.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
