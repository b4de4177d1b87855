"""The textbook: a plain transcription of the paper and the authors' habits, sharing no code with the package.

Every forward pass is written out, nothing is batched, folded, fused or reused. It reads and returns plain dicts of
tensors, named as the package's state dict, and is slow on purpose.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

Params = dict[str, torch.Tensor]


@dataclass
class Setting:
    """What the networks look like, beyond the shapes of their weights."""

    blocks: int
    light: bool
    decoder_norm: str = "adalin"
    gen_cam: bool = True
    disc_cam: bool = True


def of(params: Params, prefix: str) -> Params:
    return {k[len(prefix) + 1 :]: v for k, v in params.items() if k.startswith(prefix + ".")}


def pad_conv(x, weight, bias=None, stride=1, pad=1):
    return F.conv2d(F.pad(x, (pad, pad, pad, pad), mode="reflect"), weight, bias, stride)


# Equation 1


def instance_normalised(x, unbiased):
    mean = x.mean((2, 3), keepdim=True)
    var = x.var((2, 3), keepdim=True, unbiased=unbiased)
    return (x - mean) / torch.sqrt(var + 1e-5)


def layer_normalised(x):
    mean = x.mean((1, 2, 3), keepdim=True)
    var = x.var((1, 2, 3), keepdim=True, unbiased=True)
    return (x - mean) / torch.sqrt(var + 1e-5)


def adalin(x, rho, gamma, beta):
    return gamma * (rho * instance_normalised(x, True) + (1 - rho) * layer_normalised(x)) + beta


# Tables 1 and 4


def decoder_normalised(p: Params, name: str, kind: str, x, style=None):
    """A norm of the decoder; ``style`` is gamma and beta from outside, if they are not its own."""
    if kind == "gn":
        n, c, h, w = x.shape
        groups = x.reshape(n, math.gcd(32, c), -1)
        mean, var = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, unbiased=False)
        x = ((groups - mean) / torch.sqrt(var + 1e-5)).reshape(n, c, h, w)
        return x * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]
    rho = {"adalin": p[f"{name}.rho"], "in": 1, "adain": 1, "ln": 0}[kind]
    gamma, beta = style or (p[f"{name}.gamma"], p[f"{name}.beta"])
    return adalin(x, rho, gamma, beta)


def generator(p: Params, x, setting: Setting):
    """Picture, cam_logit (N x 2), heatmap; the latter two are None without CAM."""
    x = torch.relu(instance_normalised(pad_conv(x, p["down.0.0.weight"], pad=3), False))
    x = torch.relu(instance_normalised(pad_conv(x, p["down.1.0.weight"], stride=2), False))
    x = torch.relu(instance_normalised(pad_conv(x, p["down.2.0.weight"], stride=2), False))
    for i in range(setting.blocks):
        h = torch.relu(instance_normalised(pad_conv(x, p[f"encoder.{i}.conv1.weight"]), False))
        x = x + instance_normalised(pad_conv(h, p[f"encoder.{i}.conv2.weight"]), False)

    logit = heatmap = style = None
    if setting.gen_cam:
        avg_weight, max_weight = p["cam.avg_fc.weight"], p["cam.max_fc.weight"]
        x, logit = cam(x, avg_weight, max_weight, avg_weight, max_weight, p["cam.conv.weight"], p["cam.conv.bias"])
        x = torch.relu(x)
        heatmap = x.sum(1, keepdim=True)

    kind = setting.decoder_norm
    if kind in ("adalin", "adain"):
        flat = x.mean((2, 3)) if setting.light else x.reshape(x.shape[0], -1)
        hidden = torch.relu(torch.relu(flat @ p["mlp.0.weight"].T) @ p["mlp.2.weight"].T)
        gamma, beta = hidden @ p["gamma.weight"].T, hidden @ p["beta.weight"].T
        style = gamma[:, :, None, None], beta[:, :, None, None]

    for i in range(setting.blocks):
        h = pad_conv(x, p[f"decoder.{i}.conv1.weight"])
        h = torch.relu(decoder_normalised(p, f"decoder.{i}.norm1", kind, h, style))
        h = pad_conv(h, p[f"decoder.{i}.conv2.weight"])
        x = x + decoder_normalised(p, f"decoder.{i}.norm2", kind, h, style)
    for i in range(2):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = pad_conv(x, p[f"up.{i}.conv.weight"])
        x = torch.relu(decoder_normalised(p, f"up.{i}.norm", kind, x))
    return torch.tanh(pad_conv(x, p["out.0.weight"], pad=3)), logit, heatmap


def cam(x, avg_raw, max_raw, avg_normed, max_normed, mix_weight, mix_bias):
    """Attended maps before their activation, and the two logits."""
    logit_avg = x.mean((2, 3)) @ avg_normed.T
    logit_max = x.flatten(2).max(2).values @ max_normed.T
    twice = torch.cat([x * avg_raw[:, :, None, None], x * max_raw[:, :, None, None]], 1)
    return F.conv2d(twice, mix_weight, mix_bias), torch.cat([logit_avg, logit_max], 1)


# Tables 5 and 6


def spectral(weight, u, v):
    return weight / (u @ weight.reshape(weight.shape[0], -1) @ v)


def power_iteration(p: Params) -> None:
    """One step for every pair of u and v in ``p``, in place."""
    for name in [k for k in p if k.endswith(".u")]:
        rows = p[name[:-1] + "weight"].detach()
        rows = rows.reshape(rows.shape[0], -1)
        v = rows.T @ p[name]
        p[name[:-1] + "v"] = v / v.norm()
        u = rows @ p[name[:-1] + "v"]
        p[name] = u / u.norm()


def discriminator(p: Params, x, with_cam: bool):
    """Patch logits, cam_logit (N x 2), heatmap; the latter two are None without CAM."""
    layers = sorted({int(k.split(".")[1]) for k in p if k.startswith("encoder.")})
    for n, i in enumerate(layers):
        weight = spectral(p[f"encoder.{i}.weight"], p[f"encoder.{i}.u"], p[f"encoder.{i}.v"])
        stride = 1 if n == len(layers) - 1 else 2
        x = F.leaky_relu(pad_conv(x, weight, p[f"encoder.{i}.bias"], stride), 0.2)
    logit = heatmap = None
    if with_cam:
        avg_raw, max_raw = p["cam.avg_fc.weight"], p["cam.max_fc.weight"]
        avg_normed, max_normed = avg_raw / avg_raw.norm(), max_raw / max_raw.norm()
        x, logit = cam(x, avg_raw, max_raw, avg_normed, max_normed, p["cam.conv.weight"], p["cam.conv.bias"])
        x = F.leaky_relu(x, 0.2)
        heatmap = x.sum(1, keepdim=True)
    patch = pad_conv(x, spectral(p["classifier.weight"], p["classifier.u"], p["classifier.v"]))
    return patch, logit, heatmap


# Equations 2 to 7


def bce(logit, target):
    p = torch.sigmoid(logit)
    return -(target * torch.log(p) + (1 - target) * torch.log(1 - p)).mean()


def disc_losses(params: Params, real_a, real_b, setting: Setting):
    terms = {}
    fake_a = generator(of(params, "gen_b2a"), real_b, setting)[0].detach()
    fake_b = generator(of(params, "gen_a2b"), real_a, setting)[0].detach()
    for domain, real, fake in (("a", real_a, fake_a), ("b", real_b, fake_b)):
        for scale in ("local", "global"):
            p = of(params, f"disc_{scale}_{domain}")
            real_patch, real_cam, _ = discriminator(p, real, setting.disc_cam)
            fake_patch, fake_cam, _ = discriminator(p, fake, setting.disc_cam)
            terms[f"disc/adv_{scale}_{domain}"] = ((real_patch - 1) ** 2).mean() + (fake_patch**2).mean()
            if setting.disc_cam:
                terms[f"disc/cam_{scale}_{domain}"] = ((real_cam - 1) ** 2).mean() + (fake_cam**2).mean()
    return terms


def gen_losses(params: Params, real_a, real_b, setting: Setting):
    terms = {}
    a2b, b2a = of(params, "gen_a2b"), of(params, "gen_b2a")
    for domain, real, other, into, outof, name in (
        ("a", real_a, real_b, b2a, a2b, "b2a"),
        ("b", real_b, real_a, a2b, b2a, "a2b"),
    ):
        fake, logit_source, _ = generator(into, other, setting)
        for scale in ("local", "global"):
            patch, cam_logit, _ = discriminator(of(params, f"disc_{scale}_{domain}"), fake, setting.disc_cam)
            terms[f"gen/adv_{scale}_{domain}"] = ((patch - 1) ** 2).mean()
            if setting.disc_cam:
                terms[f"gen/adv_cam_{scale}_{domain}"] = ((cam_logit - 1) ** 2).mean()
        there = generator(outof, real, setting)[0]
        terms[f"gen/cycle_{domain}"] = (generator(into, there, setting)[0] - real).abs().mean()
        same, logit_target, _ = generator(into, real, setting)
        terms[f"gen/identity_{domain}"] = (same - real).abs().mean()
        if setting.gen_cam:
            terms[f"gen/cam_{name}"] = bce(logit_source, 1) + bce(logit_target, 0)
    return terms


WEIGHTS = {"adv": 1, "cycle": 10, "identity": 10, "cam": 1000}


def total(terms, weights):
    """Equation 7; a discriminator's terms all have the adversarial weight."""
    kinds = {name: "adv" if name.startswith("disc/") else name.split("/")[1].split("_")[0] for name in terms}
    return sum(weights[kinds[name]] * term for name, term in terms.items())


def adam(params: Params, gradients: Params, lr, decay):
    """Adam's first step from zero state: both averages are corrected to the gradient itself."""
    for name, gradient in gradients.items():
        with torch.no_grad():
            g = gradient + decay * params[name]
            params[name] -= lr * g / (g.abs() + 1e-8)


def step(params: Params, real_a, real_b, setting: Setting, weights=None, lr=1e-4, decay=1e-4):
    """The first training step, in place on ``params`` (parameters require grad, u and v do not).

    Returns the terms of both updates, and the gradients of both by parameter name.
    """
    weights = weights or WEIGHTS
    terms, gradients = {}, {}
    for kind, losses in (("disc", disc_losses), ("gen", gen_losses)):
        power_iteration(params)
        made = losses(params, real_a, real_b, setting)
        names = [n for n, p in params.items() if n.startswith(kind) and p.requires_grad]
        found = torch.autograd.grad(total(made, weights), [params[n] for n in names])
        adam(params, dict(zip(names, found, strict=True)), lr, decay)
        terms |= {k: v.detach() for k, v in made.items()}
        gradients |= dict(zip(names, found, strict=True))
    for name, p in params.items():
        if name.endswith("rho"):
            p.data.clamp_(0, 1)
    return terms, gradients
