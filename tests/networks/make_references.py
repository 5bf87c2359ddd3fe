"""Writes references/*.npz: small U-Nets of diffusers with random weights, and what they give.

Run once, outside CI, where torch and diffusers are installed (0.42.1 made the files):

    python tests/networks/make_references.py
"""

import json
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import UNet2DConditionModel

FOLDER = Path(__file__).parent / "references"
COMMON = {
    "sample_size": 8, "in_channels": 3, "out_channels": 3, "norm_num_groups": 4,
    "block_out_channels": (8, 16), "cross_attention_dim": 8, "attention_head_dim": 2,
}  # fmt: skip
CONFIGS = {
    "shapes_like": COMMON | {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1, "encoder_hid_dim": 12, "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 10,
    },
    "more_of_it": COMMON | {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": (1, 2), "transformer_layers_per_block": (2, 1),
        "only_cross_attention": (True, False), "mid_block_only_cross_attention": False,
        "use_linear_projection": True, "freq_shift": 1, "flip_sin_to_cos": False,
    },
}  # fmt: skip
FIXED = {"mid_block_only_cross_attention"}
"""Options that diffusers must be told and that are fixed here."""


def write(name, config, seed):
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(**config).eval()
    for parameter in unet.parameters():  # zeros and ones would hide mistakes
        parameter.data += 0.1 * torch.randn_like(parameter)
    weights = {key: value.numpy().copy() for key, value in unet.state_dict().items()}
    null = torch.randn(config["cross_attention_dim"])
    x, timesteps = torch.randn(3, 3, 8, 8), torch.tensor([3.0, 400.5, 990.0])
    width = config.get("encoder_hid_dim", config["cross_attention_dim"])
    states, pooled = torch.randn(3, 5, width), torch.randn(3, 10)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    if True in config.get("only_cross_attention", ()):
        mask[:] = True  # such attention looks at padding in diffusers, and here it does not
    with torch.no_grad():
        output = run(unet, x, timesteps, states, mask, pooled, null)
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        config=json.dumps({key: value for key, value in config.items() if key not in FIXED}),
        x=last(x), timesteps=timesteps.numpy(), states=states.numpy(), mask=mask.numpy(),
        pooled=pooled.numpy(), output=last(output),
        **{f"weights/{key}": value for key, value in weights.items()},
        **{"weights/null_token": null.numpy()},
    )  # fmt: skip


def run(unet, x, timesteps, states, mask, pooled, null):
    """With what diffusers does not have: a null token, and no pooled vector of what is hidden."""
    if unet.encoder_hid_proj is not None:
        states = unet.encoder_hid_proj(states)
        unet.encoder_hid_proj = torch.nn.Identity()
    tokens = torch.cat([null.expand(len(x), 1, -1), states], dim=1)
    seen = torch.cat([torch.ones(len(x), 1, dtype=torch.bool), mask], dim=1)
    labels = None if unet.class_embedding is None else pooled * mask.any(1, keepdim=True)
    return unet(x, timesteps, tokens, class_labels=labels, encoder_attention_mask=seen).sample


def last(images):
    """Channels last."""
    return images.permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, config) in enumerate(CONFIGS.items()):
        write(name, config, seed)
    print(f"made with diffusers {diffusers.__version__}")
