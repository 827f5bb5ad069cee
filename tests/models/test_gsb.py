"""The network against a rendition in NumPy that shares no code with it."""

import numpy as np
import pytest
import torch
from scipy.special import erf

from gsb_tvm.models.fill import realistic_
from gsb_tvm.models.gsb import PRESETS, Gsb, GsbConfig, float_vit

TINY = {
    "image_size": 8, "patch_size": 4, "width": 24, "depth": 2, "heads": 3, "mlp_ratio": 2.0,
    "classes": 5,
}  # fmt: skip


def numpy_gsb(state: dict[str, np.ndarray], config: GsbConfig, images: np.ndarray) -> np.ndarray:
    """Return the logits by METHODS: weights (W), activations (A), (A+), groups, heads."""
    s07, s09 = np.float64(np.float32(0.7)), np.float64(np.float32(0.9))

    def norm(x, name):
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-12) * state[name + ".weight"] + state[name + ".bias"]

    def binary(w):
        return np.abs(w).mean() * np.sign(w - w.mean())

    def linear(x, name, levels):
        w = binary(state[name + ".weight"])
        a = state[name + ".input_clip_val"]
        return levels(x + state[name + ".move.bias"], a) @ w.T + state[name + ".bias"]

    def signed(x, a):
        return a * np.sign(x)

    def unsigned(x, a):
        return a * np.clip(np.round(x / a), 0, 1)

    def int8(x, a):
        return a * np.clip(np.round(x / a), -128, 127)

    def head(x, name):
        w = int8(state[name + ".weight"], state[name + ".weight_clip_val"])
        x = int8(x + state[name + ".move.bias"], state[name + ".input_clip_val"])
        return x @ w.T + state[name + ".bias"]

    def attention(x, name):
        b, n, d = x.shape
        qkv = linear(x, name + ".qkv", signed).reshape(b, n, 3, config.heads, -1)
        query, key, v = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
        query = signed(query + state[name + ".move_q.bias"], state[name + ".clip_query"])
        key = signed(key + state[name + ".move_k.bias"], state[name + ".clip_key"])
        v = v + state[name + ".move_v.bias"]
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(d // config.heads)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p = p / p.sum(-1, keepdims=True) + state[name + ".move_att.bias"]
        weights, values = (
            unsigned(p, state[name + ".clip_attn"]),
            signed(v, state[name + ".clip_value"]),
        )
        if config.groups == 3:
            for share, k in ((s07, "2"), (s09, "3")):
                weights = weights + state[name + ".clip_attn" + k] * (p > share * p.max())
                outer = (v > share * v.max()) | (v < share * v.min())
                values = values + state[name + ".clip_value" + k] * np.sign(v * outer)
        mixed = (weights @ values).transpose(0, 2, 1, 3).reshape(b, n, d)
        return linear(mixed, name + ".proj", signed)

    def mlp(x, name):
        x = linear(x, name + ".fc1", signed)
        x = np.clip(0.5 * x * (1 + erf(x / np.float64(np.float32(np.sqrt(2))))), -10, 10)
        return linear(x, name + ".fc2", unsigned)

    b, p = len(images), config.patch_size
    side = config.image_size // p
    alpha = state["patch_embed.proj.alpha"][:, None, None, None]
    w = alpha * np.clip(np.round(state["patch_embed.proj.weight"] / alpha), -128, 127)
    patches = images.reshape(b, config.channels, side, p, side, p).transpose(0, 2, 4, 1, 3, 5)
    x = patches.reshape(b, side * side, -1) @ w.reshape(len(w), -1).T
    x = x + state["patch_embed.proj.bias"]
    tokens = ["cls_token", "dist_token"][: 1 + config.distilled]
    x = np.concatenate([*(np.repeat(state[t], b, 0) for t in tokens), x], 1) + state["pos_embed"]
    for i in range(config.depth):
        name = f"blocks.{i}"
        x = x + attention(norm(x, name + ".norm1"), name + ".attn")
        x = x + mlp(norm(x, name + ".norm2"), name + ".mlp")
    x = norm(x, "norm")
    if not config.distilled:
        return head(x[:, 0], "head")
    return (head(x[:, 0], "head") + head(x[:, 1], "head_dist")) / 2


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("distilled", [False, True])
def test_forward_equals_the_numpy_rendition(groups: int, distilled: bool) -> None:
    config = GsbConfig(**TINY, groups=groups, distilled=distilled)
    model = realistic_(Gsb(config), 1).double().eval()
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    images = np.random.default_rng(2).standard_normal((8, 3, 8, 8))
    with torch.no_grad():
        for batch in (1, 4):
            for part in np.split(images, 8 // batch):
                found = model(torch.from_numpy(part)).numpy()
                np.testing.assert_allclose(found, numpy_gsb(state, config, part), atol=1e-9)


def test_training_and_evaluation_compute_the_same_values() -> None:
    model = realistic_(Gsb(GsbConfig(**TINY)), 0).double()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.manual_seed(0))
    first, second = model.train()(images)
    torch.testing.assert_close((first + second) / 2, model.eval()(images), rtol=0, atol=1e-12)


def test_the_masks_span_the_batch() -> None:
    model = realistic_(Gsb(GsbConfig(**TINY)), 0).eval()
    images = torch.randn(4, 3, 8, 8, generator=torch.manual_seed(0))
    with torch.no_grad():
        together, alone = model(images), torch.cat([model(x) for x in images.split(1)])
    assert (together - alone).abs().max() > 1e-3


def test_gradients_reach_every_parameter() -> None:
    model = realistic_(Gsb(PRESETS["mini"]), 0).train()
    first, second = model(torch.randn(8, 3, 32, 32, generator=torch.manual_seed(0)))
    (first.square().mean() + second.square().mean()).backward()
    # The outermost group holds a few values a tensor, which may all meet an attention of zero.
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in missing if not name.endswith(("clip_value3", "clip_attn3"))] == []


def test_deit_small_has_the_keys_of_official_checkpoints() -> None:
    with torch.device("meta"):
        state = Gsb(PRESETS["deit-small"]).state_dict()
    assert len(state) == 403
    assert state["blocks.11.attn.move_att.bias"].shape == (6, 198, 198)
    assert state["blocks.0.attn.move_q.bias"].shape == (6, 1, 64)
    assert state["blocks.0.mlp.fc2.move.bias"].shape == (1536,)
    assert state["blocks.0.attn.clip_value3"].shape == ()
    assert state["patch_embed.proj.init_state"].shape == (1,)
    assert state["head_dist.weight_clip_val"].shape == ()


def test_the_float_network_has_no_quantiser() -> None:
    state = float_vit(GsbConfig(**TINY)).state_dict()
    assert not [key for key in state if "move" in key or "clip" in key or "alpha" in key]
    assert set(state) < set(Gsb(GsbConfig(**TINY)).state_dict())


def test_stage_1_has_binary_weights_in_the_mlp_only() -> None:
    model = Gsb(GsbConfig(**TINY).stage1()).eval()
    binary = {name for name, m in model.named_modules() if hasattr(m, "quantized_weight")}
    assert binary == {f"blocks.{i}.mlp.fc{j}" for i in (0, 1) for j in (1, 2)}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"heads": 5}, "width 24 is not a multiple of heads 5"),
        ({"patch_size": 3}, "image_size 8 is not a multiple of patch_size 3"),
        ({"groups": 2}, "groups is 2, expected 1 or 3"),
        ({"binary_weights": "mlp"}, 'binary activations need binary_weights="all"'),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared in full)
        GsbConfig(**(TINY | change))
    assert str(caught.value) == text
