"""Sampling as an animation: at each step, a network's estimate of the clean image in the noise.

The published networks of `quick`, constant, debiased and P2, from the same noise, above them real images. Shown is the
estimate of x0 at each DDIM step, clipped to the range of images as the sampler does. The samples come first: that is
what a page shows that does not animate.

python docs/animation.py            # writes docs/figures/sampling.png, an animated PNG
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from debiaslib import Schedule, load_model, sample, to_x0_epsilon
from debiaslib.data.minifaces import render
from debiaslib.diffusion.sampling import to_uint8
from debiaslib.figures.style import label, look
from debiaslib.paths import checkout

WEIGHTS, OUT = checkout() / "results/reference/quick/weights", Path(__file__).parent / "figures/sampling.png"
ARMS = {"constant": "constant-s0", "debiased": "debiased-s0", "p2(k=1,gamma=1)": "p2-k1-gamma1-s0"}
IMAGES, STEPS = 5, 40
SIDE, GAP, MARGIN, HEAD = 64, 4, 104, 30  # pixels
FRAME, LAST = 120, 3000  # milliseconds


def estimates(run):
    """[(t, x0_hat)] at each step, x0_hat uint8 (IMAGES, 3, R, R); at the end (None, samples)."""
    network, schedule, seen = load_model(WEIGHTS / run), Schedule.linear(), []

    def watched(x_t, t):
        epsilon = network(x_t, t).sample
        x0_hat, _ = to_x0_epsilon(epsilon, x_t, int(t[0]), schedule, "epsilon")
        seen.append((int(t[0]), to_uint8(x0_hat.clamp(-1, 1)).numpy()))
        return epsilon

    shape = render(np.arange(1)).shape[1:]
    samples = sample(watched, schedule, range(IMAGES), steps=STEPS, batch_size=IMAGES, shape=shape)
    return [*seen, (None, samples)]


def frame(rows, said):
    """One picture of labelled rows [(name, colour, images)], with a line above them."""
    picture = Image.new("RGB", (MARGIN + IMAGES * (SIDE + GAP), HEAD + len(rows) * (SIDE + GAP)), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.truetype(findfont("DejaVu Sans"), 15)
    draw.text((MARGIN, 6), said, "#333333", font)
    for line, (name, colour, images) in enumerate(rows):
        top = HEAD + line * (SIDE + GAP)
        draw.text((MARGIN - 10, top + SIDE // 2), name, colour, font, anchor="rm")
        for i, image in enumerate(images):
            tile = Image.fromarray(image.transpose(1, 2, 0)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            picture.paste(tile, (MARGIN + i * (SIDE + GAP), top))
    return picture


def main():
    """Write the animation."""
    seen = {arm: estimates(run) for arm, run in ARMS.items()}
    real, frames = render(np.arange(IMAGES)), []
    for k, (t, _) in enumerate(seen["constant"]):
        said = "the samples" if t is None else f"what each sees in the noise, t = {t}"
        rows = [(label(arm), look(arm).colour, seen[arm][k][1]) for arm in ARMS]
        frames.append(frame([("real", "#777777", real), *rows], said))
    durations = [LAST, LAST // 3, *[FRAME] * (len(frames) - 2)]
    frames[-1].save(OUT, save_all=True, append_images=frames[:-1], duration=durations, loop=0, optimize=True)
    print(f"{OUT}: {len(frames)} frames, {OUT.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
