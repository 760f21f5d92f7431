"""What training minimises, over summed log-probabilities of each pair's candidates, and the figures that are logged beside it.

Everywhere: (pairs, candidates) arrays in nats, candidate 0 is the chosen one, `mask` is true where there is a candidate. d is
the log-probability minus the reference's; with `length_normalized`, and in ipo, both are means over tokens instead of sums.
Two objectives contrast the contexts of a whole grid; their scores come from `contrasting.py`.
"""

import mlx.core as mx

from .. import preference
from ..recipe import CONTRASTS_CONTEXTS, Training
from . import contrasting

_FAR = -1e30  # score of a candidate that is not there


def losses(logps: mx.array, reference: mx.array, lengths: mx.array, mask: mx.array, settings: Training) -> mx.array:
    """(pairs,) losses of `settings.objective`; the loss of a step is their mean over all its pairs.

    logps, reference: (pairs, candidates) summed log-probabilities, nats; lengths: (pairs, candidates) tokens.
    Label smoothing s is the share of pairs assumed to be the wrong way round. The loss is then (1 - s) x the loss as labelled +
    s x the mean loss with each rejected candidate in the chosen one's place.
    """
    chosen_nll = -logps[:, 0] / mx.maximum(lengths[:, 0], 1)
    if settings.length_normalized or settings.objective == "ipo":
        logps, reference = logps / mx.maximum(lengths, 1), reference / mx.maximum(lengths, 1)
    if settings.objective in CONTRASTS_CONTEXTS:
        matrices = contrasting.scores(logps, settings.objective, settings.beta)
        loss = sum(softmax_loss(m, mx.ones(m.shape, mx.bool_), settings.label_smoothing) for m in matrices) / len(matrices)
    elif settings.objective == "sft":
        loss = _smoothed(-logps, mask, settings.label_smoothing)
    elif settings.objective in ("ipo", "hinge"):
        loss = _pairwise(logps - reference, mask, settings)
    else:
        d = logps - reference
        if settings.objective == "dpop":
            d = mx.concatenate([d[:, :1] - settings.dpop_weight * mx.maximum(-d[:, :1], 0), d[:, 1:]], axis=1)
        loss = softmax_loss(settings.beta * d, mask, settings.label_smoothing)
    return loss + settings.nll_weight * chosen_nll if settings.nll_weight else loss


def softmax_loss(scores: mx.array, mask: mx.array, label_smoothing: float = 0.0) -> mx.array:
    """-log softmax(scores)[chosen], scores = beta x d: `dpo`, `infonce`, and `dpop` with its penalised chosen score.

    With two candidates it is -log sigmoid(beta x (d_chosen - d_rejected)): DPO (Rafailov et al. 2023, eq. 7), with smoothing
    cDPO (Mitchell 2023, eq. 3), and with the penalty DPOP (Pal et al. 2024, eq. 3). With N, it is InfoNCE whose critic is
    beta x d. DPO becomes this with more than one rejected answer, so `dpo` and `infonce` are one function.
    log(candidates) where policy == reference.
    """
    scores = mx.where(mask, scores, _FAR)
    return _smoothed(mx.logsumexp(scores, axis=1, keepdims=True) - scores, mask, label_smoothing)


def _smoothed(by_candidate: mx.array, mask: mx.array, label_smoothing: float) -> mx.array:
    """by_candidate[:, j]: the loss if candidate j were the chosen one."""
    if not label_smoothing:
        return by_candidate[:, 0]
    rejected = mx.where(mask[:, 1:], by_candidate[:, 1:], 0).sum(axis=1) / mx.maximum(mask[:, 1:].sum(axis=1), 1)
    return (1 - label_smoothing) * by_candidate[:, 0] + label_smoothing * rejected


def _pairwise(d: mx.array, mask: mx.array, settings: Training) -> mx.array:
    """Mean over rejected candidates of a loss of the margin m = d_chosen - d_rejected.

    ipo: (m - 1 / (2 beta))^2 (Azar et al. 2023, eq. 17), always on means over tokens, as IPO's authors did and TRL does;
    hinge: max(0, 1 - beta m) (SLiC, Zhao et al. 2023).
    """

    def loss_of(margin: mx.array) -> mx.array:
        if settings.objective == "ipo":
            return (margin - 1 / (2 * settings.beta)) ** 2
        return mx.maximum(1 - settings.beta * margin, 0)

    margin = d[:, :1] - d[:, 1:]
    loss = (1 - settings.label_smoothing) * loss_of(margin) + settings.label_smoothing * loss_of(-margin)
    return mx.where(mask[:, 1:], loss, 0).sum(axis=1) / mx.maximum(mask[:, 1:].sum(axis=1), 1)


def metrics(logps: mx.array, reference: mx.array, lengths: mx.array, mask: mx.array, settings: Training) -> dict[str, mx.array]:
    """Figures of each pair, (pairs,) float32 each.

    chosen_reward, rejected_reward (mean over rejected), margin and accuracy: as in `preference.py`, on sums over tokens; an
    accuracy of 0.5 where no rejected candidate has a reference. kl: nats a token from the reference to the policy, estimated on
    the chosen answer. That is right for samples of the reference at temperature 1; in a later round the policy drew the answer,
    and it is no divergence. nll: of the chosen answer, nats a token. chosen_logp, rejected_logp (mean over rejected):
    log-probabilities of whole answers, nats; where both fall, text decays. Candidates without a reference (NaN) are left out of
    the means.
    """
    d = logps - reference
    known = mask & ~mx.isnan(d)
    reward = mx.where(known, settings.beta * d, 0)
    others = known[:, 1:].sum(axis=1)
    rejected = reward[:, 1:].sum(axis=1) / mx.maximum(others, 1)
    difference = reward[:, :1] - reward[:, 1:]
    won = mx.where(mx.abs(difference) <= settings.beta * preference.TIE, 0.5, difference > 0)
    accuracy = mx.where(known[:, 1:], won, 0).sum(axis=1) / mx.maximum(others, 1)
    tokens = mx.maximum(lengths[:, 0], 1)
    return {
        "chosen_reward": reward[:, 0],
        "rejected_reward": rejected,
        "margin": reward[:, 0] - rejected,
        "accuracy": mx.where(others > 0, accuracy, 0.5),
        "kl": mx.where(known[:, 0], -d[:, 0], 0) / tokens,
        "nll": -logps[:, 0] / tokens,
        "chosen_logp": logps[:, 0],
        "rejected_logp": mx.where(mask[:, 1:], logps[:, 1:], 0).sum(axis=1) / mx.maximum(mask[:, 1:].sum(axis=1), 1),
    }
