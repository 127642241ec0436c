"""A flow-matching training loop with the debiased loss weight: a small network on coloured disks.

    python docs/examples/train_flow_matching.py

Needs torch and diffusers beside debiaslib. The three lines of the weight are marked (1) to (3); the rest is any loop.
"""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from debiaslib import loss_weight


def disks(count, resolution=8, seed=0):
    """Stand-in data: one coloured disk on plain ground, float32 (count, 3, R, R) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    x, y, *colours = (torch.rand(8, count, 1, 1, generator=generator) * 2 - 1).unbind()
    axis = torch.linspace(-1, 1, resolution)
    inside = (axis - x) ** 2 + (axis[:, None] - y) ** 2 < 0.2
    return torch.where(inside[:, None], torch.stack(colours[:3], dim=1), torch.stack(colours[3:], dim=1))


class TinyNetwork(torch.nn.Module):
    """Two convolutions and a last one that see sigma as a channel more."""

    def __init__(self, width=32):
        super().__init__()
        layers = [torch.nn.Conv2d(n, width, 3, padding=1) for n in (4, width)]
        self.layers, self.out = torch.nn.ModuleList(layers), torch.nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x_t, sigma):
        h = torch.cat([x_t, sigma.expand(-1, 1, *x_t.shape[2:])], dim=1)
        for layer in self.layers:
            h = torch.nn.functional.silu(layer(h))
        return self.out(h)


def main(*, steps=300, batch_size=32, weighting="debiased", normalize=True, shift=1.0, seed=0):
    """Train; return (network, weight (T,), losses)."""
    torch.manual_seed(seed)
    images, model = disks(512), TinyNetwork()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    # (1) the weight of every timestep, once, before the loop; its index is that of scheduler.timesteps
    weight = loss_weight(weighting, scheduler, prediction_type="flow_prediction", normalize=normalize).float()

    losses = []
    for _ in range(steps):
        x0 = images[torch.randint(len(images), (batch_size,))]
        noise = torch.randn_like(x0)
        index = torch.randint(len(scheduler.timesteps), (batch_size,))
        sigma = scheduler.sigmas[index].view(-1, 1, 1, 1)
        output = model((1 - sigma) * x0 + sigma * noise, sigma)
        error = (output - (noise - x0)).square().mean(dim=(1, 2, 3))  # (2) one number for each image
        loss = (weight[index] * error).mean()  # (3) weighted, then the mean over the batch
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model, weight, losses


if __name__ == "__main__":
    _, _, losses = main()
    for step in range(0, len(losses), 50):
        print(f"steps {step:3} to {step + 49:3}: mean loss {sum(losses[step : step + 50]) / 50:.3f}")
