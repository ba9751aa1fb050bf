"""The losses. Each needs an image and words, nothing else.

A batch may hold several shards. What a loss asks across the images of one, or the mean it takes over as many tokens as
there happen to be, stays within the shard; so the loss is the mean of the shards' losses.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from training.batches import Batch
from training.config import TrainConfig
from training.model import Trainee


def match_loss(model: Trainee, batch: Batch, config: TrainConfig, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, and its parts for the log."""
    if step >= config.learned:
        return explain_loss(model, batch, config)
    image_tokens = model.encode_image(batch.pixels, batch.keep)
    parts = {"tags": tag_loss(model.tags(image_tokens), batch.tags)}
    loss = config.tags * parts["tags"]
    if config.contrast:
        image, text = model.vectors(image_tokens, batch.sentence_ids, batch.sentence_mask)
        parts["contrast"] = by_shard(contrast_loss, batch.shards, image, text, batch.tags, config.temperature)
        loss = loss + config.contrast * parts["contrast"]
    if step >= config.match_from:
        shown, stays = tokens_for_match(image_tokens.detach(), batch, config, step)
        attention: list[Tensor] = []
        logits = model.match(shown, batch.ids, batch.mask, attention, stays).float()
        truth = truths(logits)
        smoothing = config.smoothing if step < config.fade_from else 0.0
        parts["match"] = F.cross_entropy(logits.flatten(0, 1), truth.flatten(), label_smoothing=smoothing)
        parts["right"] = (logits.argmax(-1) == truth).float().mean()
        where = model.tags(image_tokens).float().softmax(-1).detach()
        looks = [attention[layer] for layer in config.look_layers]
        parts["look"] = by_shard(look_loss, batch.shards, looks, where, batch.said)
        loss = loss + parts["match"] + config.look * parts["look"]
    return loss, {name: value.detach() for name, value in parts.items()}


def by_shard(loss: Callable[..., Tensor], shards: int, *arguments: Any) -> Tensor:
    """The mean of a loss over the shards, whose parts of every tensor and of every list of tensors it is given."""
    if shards == 1:
        return loss(*arguments)

    def parts(argument: Any) -> Sequence[Any]:
        if isinstance(argument, Tensor):
            return argument.chunk(shards)
        return list(zip(*map(parts, argument), strict=True)) if isinstance(argument, list) else [argument] * shards

    return torch.stack([loss(*some) for some in zip(*map(parts, arguments), strict=True)]).mean()


def truths(logits: Float[Tensor, "b text 2"]) -> Int[Tensor, "b text"]:
    """1 for every second text, from the first on: the captions that are true."""
    return torch.arange(logits.shape[1], device=logits.device).remainder(2).eq(0).long().expand(len(logits), -1)


def explain_loss(model: Trainee, batch: Batch, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The match, the look, and the sign of the match logit's gradient, for a text tower before an image tower at rest.

    A match that is certain of its case has a gradient of any sign: which patch it rests on does not show. So the
    gradient of the logit with respect to the attention of one layer has to be positive on the patches where the tag
    head, taught by words alone, believes the name to be, and negative elsewhere: ``softplus(-+ slope * gradient)``, the
    gradient of each head and token over its largest value, the two kinds of patches weighing the same.
    """
    with torch.no_grad():
        image_tokens = model.encode_image(batch.pixels, batch.keep)
        where = model.tags(image_tokens).float().softmax(-1)
    attention: list[Tensor] = []
    logits = model.match(image_tokens, batch.ids, batch.mask, attention).float()
    truth = truths(logits)
    parts = {"match": F.cross_entropy(logits.flatten(0, 1), truth.flatten())}
    looks = [attention[layer] for layer in config.look_layers]
    parts["look"] = by_shard(look_loss, batch.shards, looks, where, batch.said)
    (gradient,) = torch.autograd.grad(logits[:, ::2, 1].sum(), attention[config.explain_layer], create_graph=True)
    parts["explain"] = by_shard(slope_loss, batch.shards, gradient, where, batch.said, config.explain_slope)
    parts["right"] = (logits.argmax(-1) == truth).float().mean()
    loss = parts["match"] + config.look * parts["look"] + parts["explain"]
    return loss, {name: value.detach() for name, value in parts.items()}


def slope_loss(
    gradient: Float[Tensor, "b head token image_tokens"],
    where: Float[Tensor, "b patch name"],
    said: Int[Tensor, "b text t"],
    slope: float,
) -> Float[Tensor, ""]:
    """``softplus(-+ slope * gradient)``, of a named token to the patches that show its name, and to the others."""
    b, token, target = named_tokens(where, said)
    slopes = gradient.float()[b, :, token, -where.shape[1] :]  # (asked, head, patch); no row if no name is shown
    slopes = slope * slopes / slopes.detach().abs().amax(-1, keepdim=True).clamp_min(1e-12)
    on = (target > 0.5).float()[:, None]
    right = (F.softplus(-slopes) * on).sum(-1) / on.sum(-1).clamp_min(1)
    wrong = (F.softplus(slopes) * (1 - on)).sum(-1) / (1 - on).sum(-1).clamp_min(1)
    return (right + wrong).sum() / max(1, right.numel())


def named_tokens(
    where: Float[Tensor, "b patch name"], said: Int[Tensor, "b text t"]
) -> tuple[Int[Tensor, " asked"], Int[Tensor, " asked"], Float[Tensor, "asked patch"]]:
    """Image, position and place of each token that is part of a name in a true caption and that some patch shows."""
    true = said.clone()
    true[:, 1::2] = -1
    b, token = (true.flatten(1) >= 0).nonzero(as_tuple=True)
    target = where[b, :, true.flatten(1)[b, token]]
    shown = (target.amax(1) > 0.5).nonzero()[:, 0]  # once: a GPU has to be waited for, as their number is not known
    return b[shown], token[shown], target[shown]


def tokens_for_match(
    image_tokens: Float[Tensor, "b token width"], batch: Batch, config: TrainConfig, step: int
) -> tuple[Float[Tensor, "b some width"], Float[Tensor, "b some"] | None]:
    """The image tokens that the match may look at, and by what its attention to each is multiplied.

    First the patches, and only now and then the image's [CLS]. Later the patches, some of whose attention is taken away
    without a substitute, and the [CLS] of another image, which is worth nothing: so the match has to count the evidence
    that patches give. Its logit then rises with the attention on every patch that shows a name, which is what its
    gradient is asked for.
    """
    if step < config.fade_from:
        return image_tokens[:, int(step % config.summary_every != 0) :], None
    own = image_tokens[:, :1]
    others = own.reshape(batch.shards, -1, *own.shape[1:]).roll(1, 1).reshape(own.shape)  # of the same shard
    shown = torch.cat([others, image_tokens[:, 1:]], 1)
    return shown, None if batch.stays is None else F.pad(batch.stays, (1, 0), value=1.0)


def look_loss(
    attention: list[Float[Tensor, "b head token image_tokens"]],
    where: Float[Tensor, "b patch name"],
    said: Int[Tensor, "b text t"],
) -> Float[Tensor, ""]:
    """A name in a true caption looks where the tag head, taught by words alone, believes that name to be.

    ``-log(sum over patches of attention * where)``, with the heads' mean attention. Names in wrong captions (every
    second text) may look anywhere, and so may those that no patch shows.
    """
    b, token, target = named_tokens(where, said)
    if len(b) == 0:
        return where.new_zeros(())
    losses = []
    for weights in attention:
        looks = weights.float().mean(1)[b, token, -where.shape[1] :]  # without [CLS], if it was there
        found = (looks * target).sum(-1) / looks.sum(-1).clamp_min(1e-6)
        losses.append(-found.clamp_min(1e-4).log().mean())
    return torch.stack(losses).mean()


def tag_loss(logits: Float[Tensor, "b patch name"], present: Bool[Tensor, "b name"]) -> Float[Tensor, ""]:
    """Every patch shows one of the image's words; each word is shown by some patches, and no other word by any.

    A multiple-instance loss: the scene's words name everything in it, so the softmax over names of any patch should
    lie on them (first term); the mean over the 1/16 most likely patches is the probability that a name is present
    (second term).
    """
    share = logits.float().log_softmax(-1)
    explained = share.masked_fill(~present[:, None], -1e4).logsumexp(-1)
    shown = share.exp().topk(max(1, logits.shape[1] // 16), dim=1).values.mean(1).clamp(1e-5, 1 - 1e-5)
    presence = -torch.where(present, shown.log(), (1 - shown).log()).sum(-1) / present.sum(-1)
    return presence.mean() - explained.mean()


def contrast_loss(
    image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], present: Bool[Tensor, "b name"], temperature: float
) -> Float[Tensor, ""]:
    """Image and text find each other in the batch; a text that names nothing but what an image shows is no wrong one.

    ``present[j]`` are also the names in text j.
    """
    logits = image @ text.T / temperature
    true_too = (present[None] & ~present[:, None]).any(-1).logical_not()  # (image, text)
    true_too.fill_diagonal_(False)
    logits = logits.masked_fill(true_too, -1e4)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
