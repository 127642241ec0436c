"""The vision transformer of DINOv2 (Oquab et al. 2023), so that its published weights run without downloaded code.

torch-fidelity 0.4 takes the network from torch.hub, which fetches and executes a repository. The modules here bear the
names that the published state dict has.
"""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["VisionTransformer"]


class VisionTransformer(nn.Module):
    """Normalised images float (N, 3, H, W), sides multiples of `patch` -> the class token after the last norm, (N, d).

    The published ViT-L/14 is width 1024, depth 24, 16 heads, trained on a grid of 37x37 patches.
    """

    def __init__(self, width=1024, depth=24, heads=16, patch=14, grid=37):
        super().__init__()
        self.grid, self.patch = grid, patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of the training; part of the published weights
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch)})
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images):
        patches = self.patch_embed["proj"](images)
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        tokens = tokens + self._positions(*patches.shape[2:])
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])

    def _positions(self, rows, columns):
        """(1, 1 + rows * columns, d): the trained grid, resampled.

        The weights were used with a scale of (rows + 0.1) / grid, which moves the sampling points a little; their
        features are those of that scale.
        """
        if rows == columns == self.grid:
            return self.pos_embed
        trained = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        scale = (rows + 0.1) / self.grid, (columns + 0.1) / self.grid
        resampled = F.interpolate(trained, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
        return torch.cat([self.pos_embed[:, :1], resampled], 1)


class Block(nn.Module):
    """Attention and a perceptron, each after a norm, scaled by channel, and added (pre-norm with LayerScale)."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": nn.Parameter(torch.ones(width))}) for _ in range(2))

    def forward(self, tokens):
        tokens = tokens + self.ls1["gamma"] * self._attend(self.norm1(tokens))
        return tokens + self.ls2["gamma"] * self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(tokens))))

    def _attend(self, tokens):
        parts = self.attn["qkv"](tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3, N, heads, L, d
        mixed = F.scaled_dot_product_attention(*parts)
        return self.attn["proj"](mixed.transpose(1, 2).flatten(2))
