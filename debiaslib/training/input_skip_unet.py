"""A U-Net with an input skip. `export_pipeline` copies this file beside the weights, so it imports diffusers alone."""

import torch
from diffusers import UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput


class InputSkipUNet(UNet2DModel):
    """`UNet2DModel` f with an input skip: scale[t] x_t + f(x_t, t). Its weights have the names of f's.

    At large t, epsilon is x_t to within a few per cent. Without the skip a small network has to copy its input through
    norms and non-linearities, and 1/sqrt(SNR) amplifies the error of that copy.
    """

    skip = None  # scale: float32 (T,), no weight and no buffer; set when the network is built, or of `config["_skip"]`

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        """The output (B, C, H, W); with learned variance (B, 2C, H, W), whose second half gets no skip."""
        output = super().forward(sample, timestep, class_labels, return_dict=False)[0]
        if self.skip is None:
            self.skip = torch.tensor(self.config["_skip"])
        output = with_skip(output, sample, timestep, self.skip)
        return UNet2DOutput(sample=output) if return_dict else (output,)


def with_skip(output, x_t, t, scale):
    """`output` plus scale[t] x_t in its first C channels, C being x_t's. t: int or (B,)."""
    scale = scale.to(x_t.device)[torch.as_tensor(t, device=x_t.device)].view(-1, 1, 1, 1)
    prediction, *values = output.split(x_t.shape[1], dim=1)
    return torch.cat([prediction + scale * x_t, *values], dim=1)
