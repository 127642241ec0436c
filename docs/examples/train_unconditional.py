"""A diffusers training loop with the debiased loss weight: an unconditional U-Net on 16x16 images.

    python docs/examples/train_unconditional.py

Needs torch and diffusers beside debiaslib. The three lines of the weight are marked (1) to (3); the rest is any loop.
"""

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel

from debiaslib import loss_weight


def disks(count, resolution=16, seed=0):
    """Stand-in data: one coloured disk on plain ground, float32 (count, 3, R, R) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    x, y, *colours = (torch.rand(8, count, 1, 1, generator=generator) * 2 - 1).unbind()
    axis = torch.linspace(-1, 1, resolution)
    inside = (axis - x) ** 2 + (axis[:, None] - y) ** 2 < 0.2
    return torch.where(inside[:, None], torch.stack(colours[:3], dim=1), torch.stack(colours[3:], dim=1))


def small_unet(resolution):
    """About 0.3 million parameters: enough to see the loss fall."""
    return UNet2DModel(
        sample_size=resolution,
        block_out_channels=(32, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
    )


def target_of(noise_scheduler, images, noise, t):
    """What the network is to predict, as the scheduler's `prediction_type` says."""
    kind = noise_scheduler.config.prediction_type
    if kind == "v_prediction":
        return noise_scheduler.get_velocity(images, noise, t)
    return {"epsilon": noise, "sample": images}[kind]


def main(images=None, *, steps=200, batch_size=16, weighting="debiased", normalize=True, seed=0, **scheduler):
    """Train; return (EMA network, weight (T,), losses). `scheduler`: options of DDPMScheduler, e.g. prediction_type."""
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = disks(512) if images is None else images
    noise_scheduler = DDPMScheduler(**{"num_train_timesteps": 1000, "prediction_type": "epsilon", **scheduler})
    model = small_unet(images.shape[-1]).to(device)
    ema = EMAModel(model.parameters(), decay=0.995)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    # (1) the weight of every timestep, once, before the loop
    kind = noise_scheduler.config.prediction_type
    weight = loss_weight(weighting, noise_scheduler, prediction_type=kind, normalize=normalize).float().to(device)

    losses = []
    for _ in range(steps):
        clean = images[torch.randint(len(images), (batch_size,))].to(device)
        noise = torch.randn_like(clean)
        t = torch.randint(noise_scheduler.config.num_train_timesteps, (batch_size,), device=device)
        output = model(noise_scheduler.add_noise(clean, noise, t), t).sample
        target = target_of(noise_scheduler, clean, noise, t)
        error = (output.float() - target.float()).square().mean(dim=(1, 2, 3))  # (2) one number for each image
        loss = (weight[t] * error).mean()  # (3) weighted, then the mean over the batch
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(model.parameters())
        losses.append(loss.item())
    ema.copy_to(model.parameters())
    return model, weight, losses


if __name__ == "__main__":
    _, _, losses = main()
    for step in range(0, len(losses), 20):
        print(f"steps {step:3} to {step + 19:3}: mean loss {sum(losses[step : step + 20]) / 20:.3f}")
