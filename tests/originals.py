"""What other methods' own codes compute, as functions of their checkpoints' tensors; and checkpoints of random numbers.

Written from the layers that these codes have, in plain operations, sharing none with the package.
"""

import torch
import torch.nn.functional as F

W = 4  # width


def layer(state, name, out, into, kernel, transposed=False):
    """Random tensors of a convolution, or of a linear layer without ``kernel``."""
    shape = (out, into) if not kernel else (into, out, kernel, kernel) if transposed else (out, into, kernel, kernel)
    state[f"{name}.weight"] = torch.randn(shape) / (into * max(kernel, 1) ** 2) ** 0.5
    state[f"{name}.bias"] = torch.randn(out) / 10


def conv(state, name, x, stride=1, pad=0, mode="reflect"):
    x = F.pad(x, (pad,) * 4, mode) if pad else x
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride)


def instance(x, eps=1e-5):
    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, unbiased=False) + eps).sqrt()


# MUNIT and UNIT: Conv2dBlock's conv, norm


def nvidia_content(state, name, channels, blocks):
    layer(state, f"{name}.model.0.conv", W, channels, 7)
    layer(state, f"{name}.model.1.conv", 2 * W, W, 4)
    layer(state, f"{name}.model.2.conv", 4 * W, 2 * W, 4)
    nvidia_blocks(state, f"{name}.model.3", blocks)
    state[f"{name}.model.0.norm.running_mean"] = torch.randn(W)  # as old files have them, and nothing uses


def nvidia_blocks(state, name, blocks):
    for block in range(blocks):
        for part in range(2):
            layer(state, f"{name}.model.{block}.model.{part}.conv", 4 * W, 4 * W, 3)


def nvidia_decoder(state, name, channels, blocks):
    nvidia_blocks(state, f"{name}.model.0", blocks)
    for number, into in ((2, 4 * W), (4, 2 * W)):
        state[f"{name}.model.{number}.norm.gamma"] = torch.rand(into // 2)  # before the convolution, as they are saved
        state[f"{name}.model.{number}.norm.beta"] = torch.randn(into // 2)
        layer(state, f"{name}.model.{number}.conv", into // 2, into, 5)
    layer(state, f"{name}.model.5.conv", channels, W, 7)


def munit_checkpoint(blocks=2, hidden=16, channels=(3, 1)):
    both = {}
    for domain, count in zip("ab", channels, strict=True):
        state = both[domain] = {}
        layer(state, "enc_style.model.0.conv", W, count, 7)
        for number, (out, into) in enumerate(((2, 1), (4, 2), (4, 4), (4, 4)), start=1):
            layer(state, f"enc_style.model.{number}.conv", out * W, into * W, 4)
        layer(state, "enc_style.model.6", 8, 4 * W, 1)
        nvidia_content(state, "enc_content", count, blocks)
        nvidia_decoder(state, "dec", count, blocks)
        for number, (out, into) in enumerate(((hidden, 8), (hidden, hidden), (blocks * 16 * W, hidden))):
            layer(state, f"mlp.model.{number}.fc", out, into, 0)
    return both


def unit_checkpoint(blocks=2):
    both = {"a": {}, "b": {}}
    for state in both.values():
        nvidia_content(state, "enc", 3, blocks)
        nvidia_decoder(state, "dec", 3, blocks)
    return both


def encoded(state, name, x, blocks=2):
    x = F.relu(instance(conv(state, f"{name}.model.0.conv", x, 1, 3)))
    for number in (1, 2):
        x = F.relu(instance(conv(state, f"{name}.model.{number}.conv", x, 2, 1)))
    for block in range(blocks):
        y = F.relu(instance(conv(state, f"{name}.model.3.model.{block}.model.0.conv", x, 1, 1)))
        x = x + instance(conv(state, f"{name}.model.3.model.{block}.model.1.conv", y, 1, 1))
    return x


def decoded(state, x, adain=None, blocks=2):
    for block in range(blocks):
        y = x
        for part in range(2):
            y = instance(conv(state, f"dec.model.0.model.{block}.model.{part}.conv", y, 1, 1))
            if adain is not None:
                shift, scale, adain = adain[:, : 4 * W], adain[:, 4 * W : 8 * W], adain[:, 8 * W :]
                y = y * scale[:, :, None, None] + shift[:, :, None, None]
            y = F.relu(y) if part == 0 else y
        x = x + y
    for number in (2, 4):
        y = conv(state, f"dec.model.{number}.conv", F.interpolate(x, scale_factor=2), 1, 2)
        flat = y.flatten(1)
        mean, std = (part[:, None, None, None] for part in (flat.mean(1), flat.std(1)))
        gamma, beta = (state[f"dec.model.{number}.norm.{part}"][:, None, None] for part in ("gamma", "beta"))
        x = F.relu((y - mean) / (std + 1e-5) * gamma + beta)
    return conv(state, "dec.model.5.conv", x, 1, 3).tanh()


def munit(both, source, target, x, example):
    """The translation of ``x`` with the style of ``example``."""
    state, style = both[target], example
    for number, (stride, pad) in enumerate(((1, 3), (2, 1), (2, 1), (2, 1), (2, 1))):
        style = F.relu(conv(state, f"enc_style.model.{number}.conv", style, stride, pad))
    z = conv(state, "enc_style.model.6", style.mean((2, 3), keepdim=True)).flatten(1)
    for number in range(3):
        z = F.linear(z, state[f"mlp.model.{number}.fc.weight"], state[f"mlp.model.{number}.fc.bias"])
        z = z.relu() if number < 2 else z
    return decoded(state, encoded(both[source], "enc_content", x), z)


def unit(both, source, target, x):
    return decoded(both[target], encoded(both[source], "enc", x))


# DRIT


def drit_checkpoint():
    content, attribute, gen = {}, {}, {}
    for part in range(2):
        layer(content, f"conv_share.0.model.{(1, 5)[part]}", 4 * W, 4 * W, 3)
    for domain in "AB":
        layer(content, f"conv{domain}.0.model.1", W, 3, 7)
        for number in (1, 2):
            layer(content, f"conv{domain}.{number}.model.1", 2 * number * W, number * W, 3)
        for block in range(3, 6):
            for place in (1, 5):
                layer(content, f"conv{domain}.{block}.model.{place}", 4 * W, 4 * W, 3)
        low = domain.lower()
        layer(attribute, f"model_{low}.1", W, 3, 7)
        for place, (out, into) in zip((4, 7, 10, 13), ((2, 1), (4, 2), (4, 4), (4, 4)), strict=True):
            layer(attribute, f"model_{low}.{place}", out * W, into * W, 4)
        layer(attribute, f"model_{low}.16", 8, 4 * W, 1)
        for block in range(1, 5):
            for part in (1, 2):
                layer(gen, f"dec{domain}{block}.conv{part}.0.1", 4 * W, 4 * W, 3)
                layer(gen, f"dec{domain}{block}.blk{part}.0", 8 * W, 8 * W, 1)
                layer(gen, f"dec{domain}{block}.blk{part}.2", 4 * W, 8 * W, 1)
        for number, into in ((0, 4 * W), (1, 2 * W)):
            layer(gen, f"dec{domain}5.{number}.model.0", into // 2, into, 3, transposed=True)
            gen[f"dec{domain}5.{number}.model.1.weight"] = torch.rand(into // 2, 1, 1)
            gen[f"dec{domain}5.{number}.model.1.bias"] = torch.randn(into // 2, 1, 1)
        layer(gen, f"dec{domain}5.2", 3, W, 1, transposed=True)
        for number, (out, into) in zip((0, 2, 4), ((4 * W, 8), (4 * W, 4 * W), (16 * W, 4 * W)), strict=True):
            layer(gen, f"mlp{domain}.{number}", out, into, 0)
    judge = {}
    for number in range(3):
        layer(judge, f"model.{number}.model.1", 4 * W, 4 * W, 7)
    layer(judge, "model.3.model.1", 4 * W, 4 * W, 4)
    layer(judge, "model.4", 1, 4 * W, 1)
    return {"enc_c": content, "enc_a": attribute, "gen": gen, "disContent": judge, "ep": 1199, "total_it": 500_000,
            "gen_opt": {"state": {}, "param_groups": []}}  # fmt: skip


def drit(found, source, target, x, example):
    """The translation of ``x`` with the attribute of ``example``."""
    content, attribute, gen = found["enc_c"], found["enc_a"], found["gen"]
    c = F.leaky_relu(conv(content, f"conv{source}.0.model.1", x, 1, 3), 0.01)
    for number in (1, 2):
        c = F.relu(instance(conv(content, f"conv{source}.{number}.model.1", c, 2, 1)))
    for name in (*(f"conv{source}.{block}" for block in range(3, 6)), "conv_share.0"):
        y = F.relu(instance(conv(content, f"{name}.model.1", c, 1, 1)))
        c = c + instance(conv(content, f"{name}.model.5", y, 1, 1))
    z, low = example, target.lower()
    for place, (stride, pad) in zip((1, 4, 7, 10, 13), ((1, 3), (2, 1), (2, 1), (2, 1), (2, 1)), strict=True):
        z = F.relu(conv(attribute, f"model_{low}.{place}", z, stride, pad))
    z = conv(attribute, f"model_{low}.16", z.mean((2, 3), keepdim=True)).flatten(1)
    for number in (0, 2, 4):
        z = F.linear(z, gen[f"mlp{target}.{number}.weight"], gen[f"mlp{target}.{number}.bias"])
        z = z.relu() if number < 4 else z
    for block, part in enumerate(z.chunk(4, 1), start=1):
        everywhere, y = part[:, :, None, None].expand_as(c), c
        for half in (1, 2):
            name = f"dec{target}{block}"
            y = torch.cat([instance(conv(gen, f"{name}.conv{half}.0.1", y, 1, 1)), everywhere], 1)
            y = F.relu(conv(gen, f"{name}.blk{half}.2", F.relu(conv(gen, f"{name}.blk{half}.0", y))))
        c = c + y
    for number in range(2):
        name = f"dec{target}5.{number}.model"
        c = F.conv_transpose2d(c, gen[f"{name}.0.weight"], gen[f"{name}.0.bias"], 2, 1, 1)
        c = F.layer_norm(c, c.shape[1:]) * gen[f"{name}.1.weight"] + gen[f"{name}.1.bias"]
        c = c.relu()
    return F.conv_transpose2d(c, gen[f"dec{target}5.2.weight"], gen[f"dec{target}5.2.bias"]).tanh()


# CartoonGAN


def cartoongan_checkpoint():
    state = {}
    layer(state, "conv01_1", W, 3, 7)
    for number, into in ((2, W), (3, 2 * W)):
        layer(state, f"conv0{number}_1", 2 * into, into, 3)
        layer(state, f"conv0{number}_2", 2 * into, 2 * into, 3)
    for number in range(4, 12):
        for place in (1, 2):
            layer(state, f"conv{number:02d}_{place}", 4 * W, 4 * W, 3)
    for number, into in ((1, 4 * W), (2, 2 * W)):
        layer(state, f"deconv0{number}_1", into // 2, into, 3, transposed=True)
        layer(state, f"deconv0{number}_2", into // 2, into // 2, 3)
    layer(state, "deconv03_1", 3, W, 7)
    sizes = {1: W, 2: 2 * W, 3: 4 * W, **dict.fromkeys(range(4, 12), 4 * W), 12: 2 * W, 13: W}
    for number, size in sizes.items():
        for place in (1, 2) if 4 <= number < 12 else (1,):
            state[f"in{number:02d}_{place}.scale"] = torch.rand(size) + 0.5
            state[f"in{number:02d}_{place}.shift"] = torch.randn(size) / 10
    state["conv01_1.weight"] *= 1e-3  # maps so flat that what is added to their variance matters
    return state


def cartoongan(state, x):
    def normed(x, name):
        return instance(x, 1e-9) * state[f"{name}.scale"][:, None, None] + state[f"{name}.shift"][:, None, None]

    x = F.relu(normed(conv(state, "conv01_1", x.flip(1), 1, 3), "in01_1"))
    for number in ("02", "03"):
        x = conv(state, f"conv{number}_1", x, 2, 1, "constant")
        x = F.relu(normed(conv(state, f"conv{number}_2", x, 1, 1, "constant"), f"in{number}_1"))
    for number in range(4, 12):
        y = F.relu(normed(conv(state, f"conv{number:02d}_1", x, 1, 1), f"in{number:02d}_1"))
        x = x + normed(conv(state, f"conv{number:02d}_2", y, 1, 1), f"in{number:02d}_2")
    for number, norm in ((1, "in12_1"), (2, "in13_1")):
        x = F.conv_transpose2d(x, state[f"deconv0{number}_1.weight"], state[f"deconv0{number}_1.bias"], 2, 1, 1)
        x = F.relu(normed(conv(state, f"deconv0{number}_2", x, 1, 1, "constant"), norm))
    return conv(state, "deconv03_1", x, 1, 3).tanh().flip(1)
