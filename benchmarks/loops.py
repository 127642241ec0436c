"""Training loops to be timed side by side, each a function of a number of steps: ours, and what others would run.

All take the same network settings, batch size and folder of images, predict epsilon with a constant weight, flip at
random and clip the gradient's norm at 1. What differs beyond that is listed in README.md.
"""

import contextlib
import itertools
import sys
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms
from tqdm import tqdm

from debiaslib.data.images import load_images
from debiaslib.training.config import TrainConfig
from debiaslib.training.loop import Training
from debiaslib.training.run import Run

LR = 1e-4


def our_config(setup, **settings):
    """The `TrainConfig` of our loop on a setup. settings: any others, instead of these."""
    settings = {"max_grad_norm": 1.0, **settings}
    return TrainConfig(
        dataset=str(setup.folder), resolution=setup.resolution, network=setup.network, images=10**9,
        batch_size=setup.batch_size, lr=LR, weighting="constant", horizontal_flip=True,
        device=setup.device, threads=torch.get_num_threads(), **settings,
    )  # fmt: skip


def _finish(device):
    """Wait until the device has done all that was asked of it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


class OurLoop:
    """The package's own training, without log and checkpoints."""

    def __init__(self, setup, **settings):
        self.config = our_config(setup, **settings)
        images = load_images(self.config.dataset, self.config.resolution, progress=False)
        self.training = Training(Run(Path(setup.scratch) / "run"), self.config, images)
        self.dtype = self.config.precision

    def __call__(self, steps):
        with torch.enable_grad():
            for _ in range(steps):
                self.training.one_step()
            self.training.log.flush()
        _finish(self.config.device)


class BareLoop:
    """Forward and backward of our loop's network and objective on one batch: what no loop can be faster than."""

    def __init__(self, ours):
        self.ours, self.batch = ours, ours.training.batches(0)

    def __call__(self, steps):
        training = self.ours.training
        for _ in range(steps):
            loss, _ = training.objective.loss(training.network, *self.batch)
            loss.backward()
            training.network.zero_grad(set_to_none=True)
        _finish(self.ours.config.device)


class Folder(torch.utils.data.Dataset):
    """The images of a folder, decoded and transformed one by one when asked for, as such examples do."""

    def __init__(self, folder, resolution):
        self.paths = sorted(Path(folder).glob("*.png"))
        self.transform = transforms.Compose(
            [
                transforms.Resize(resolution, interpolation=transforms.InterpolationMode.BILINEAR),
                transforms.RandomCrop(resolution),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


class DiffusersLoop:
    """A loop of the parts of diffusers' unconditional example with its default settings. Needs accelerate."""

    def __init__(self, setup, mixed_precision="no"):
        from accelerate import Accelerator

        self.accelerator = Accelerator(mixed_precision=mixed_precision, cpu=setup.device == "cpu")
        network = UNet2DModel(**setup.unet)
        self.ema = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
        self.schedule = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        settings = {"betas": (0.95, 0.999), "weight_decay": 1e-6, "eps": 1e-8}
        optimizer = torch.optim.AdamW(network.parameters(), lr=LR, **settings)
        images = Folder(setup.folder, setup.resolution)
        loader = torch.utils.data.DataLoader(images, setup.batch_size, shuffle=True, num_workers=setup.workers)
        rates = get_scheduler("cosine", optimizer=optimizer, num_warmup_steps=500, num_training_steps=10**6)
        self.network, self.optimizer, loader, self.rates = self.accelerator.prepare(network, optimizer, loader, rates)
        self.network.train()
        self.ema.to(self.accelerator.device)
        self.batches = itertools.chain.from_iterable(itertools.repeat(loader))
        self.bar = tqdm()
        self.dtype = {"no": "float32", "bf16": "bfloat16"}[mixed_precision]
        self.input_dtype = {"no": torch.float32, "bf16": torch.bfloat16}[mixed_precision]

    def __call__(self, steps):
        with torch.enable_grad():
            for _ in range(steps):
                self._one_step(next(self.batches).to(self.input_dtype))
        _finish(self.accelerator.device)

    def _one_step(self, x0):
        noise = torch.randn(x0.shape, dtype=x0.dtype, device=x0.device)
        t = torch.randint(0, self.schedule.config.num_train_timesteps, (len(x0),), device=x0.device)
        x_t = self.schedule.add_noise(x0, noise, t)
        with self.accelerator.accumulate(self.network):
            loss = F.mse_loss(self.network(x_t, t).sample.float(), noise.float())
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.rates.step()
            self.optimizer.zero_grad()
        self.ema.step(self.network.parameters())
        self.bar.update(1)
        self.bar.set_postfix(loss=loss.detach().item(), lr=self.rates.get_last_lr()[0], ema=self.ema.cur_decay_value)


class DenoisingDiffusionLoop:
    """denoising-diffusion-pytorch's own trainer, its defaults but for the batch, on diffusers' network."""

    dtype = "float32"

    def __init__(self, setup):
        from denoising_diffusion_pytorch import GaussianDiffusion, Trainer

        diffusion = GaussianDiffusion(
            _Adapted(setup.unet), image_size=setup.resolution, objective="pred_noise", beta_schedule="linear"
        )
        self.trainer = Trainer(
            diffusion, str(setup.folder), train_batch_size=setup.batch_size, train_lr=LR, calculate_fid=False,
            save_and_sample_every=10**9, results_folder=str(Path(setup.scratch) / "denoising-diffusion"),
        )  # fmt: skip

    def __call__(self, steps):
        self.trainer.train_num_steps = self.trainer.step + steps
        with torch.enable_grad(), contextlib.redirect_stdout(sys.stderr):  # it says "training complete" at each turn
            self.trainer.train()


class _Adapted(torch.nn.Module):
    """A `UNet2DModel` with the attributes that denoising-diffusion-pytorch asks of a network."""

    self_condition = False

    def __init__(self, settings):
        super().__init__()
        self.network = UNet2DModel(**settings)
        self.channels, self.out_dim = settings["in_channels"], settings["out_channels"]

    def forward(self, x, t, x_self_cond=None):
        return self.network(x, t).sample
