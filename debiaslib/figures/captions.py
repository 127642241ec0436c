"""Titles and captions of the figures: what is shown, of which data, and what the bands mean. Imports nothing.

A caption is a template: {names} are facts that its loader in `figure_tables.py` reads off the tables. Line breaks are
not kept.
"""

_SAME_NOISE = """Row i of every weighting starts from the same noise, at any number of steps. The first images, not
chosen; no error bars."""
_CLIPPED = "x0_hat is clipped to [-1, 1] for display alone."
_BANDS = "Lines: mean over {n} images{over}."
_NO_DATA = "Computed from the schedule: no data, no error bars."

CAPTIONS = {
    "snr": (
        "Signal-to-noise ratio by timestep",
        f"""SNR(t) of the noise schedule, and the factor 1/sqrt(SNR(t)) by which an error in epsilon grows into an
        error of the one-step estimate of x0 (paper, figure 2 left). {{T}} timesteps, t = 0 the least noisy.
        {_NO_DATA}""",
    ),
    "one_step_anatomy": (
        "Anatomy of a one-step estimate",
        f"""A noisy image x_t, the estimate x0_hat from one call of the network, and the amplified error x0 - x0_hat =
        (epsilon_hat - epsilon) / sqrt(SNR(t)), for {{weightings}} (paper, figure 2 right).{{identity}} The noise is
        the same in all. {_CLIPPED} The error is clipped to [-1, 1] and drawn around grey. One training image: an
        illustration, no error bars.""",
    ),
    "samples_by_steps": (
        "Samples by number of steps",
        f"""Samples of {{weightings}} by number of sampling steps (paper, figure 1), networks of {{seeds}}.
        {_SAME_NOISE}""",
    ),
    "one_step_estimates": (
        "One-step estimates and the exact optimum",
        f"""One-step estimates x0_hat of the same training images with the same noise, for {{weightings}} (paper,
        figure 3). The optimum E[x0|x_t], where it is shown, is exact over the training images: no network can have a
        smaller mean squared error on them. {_CLIPPED} The first images, not chosen; no error bars.""",
    ),
    "colour_error": (
        "Colour error by timestep",
        f"""Squared error of the mean colour of the one-step estimate: mean over R, G and B of (mean of x0_hat - mean
        of x0)^2 in each image, not clipped. Initial: x_t itself in the place of the estimate. Training images.
        {_BANDS}""",
    ),
    "mse_epsilon": (
        "Error of epsilon by timestep",
        f"""Mean squared error of epsilon_hat by timestep (paper, figure 4), and its ratio to that of the first
        weighting. Initial: x_t itself in the place of the estimate. All see the same images, timesteps and noise, so
        the ratio's interval is that of paired differences. Training images. {_BANDS}""",
    ),
    "mse_x0": (
        "Error of x0 by timestep",
        f"""Mean squared error of the one-step estimate x0_hat by timestep, not clipped (paper, figure 4), and its
        ratio to that of the first weighting. Initial: x_t itself in the place of the estimate. All see the same
        images, timesteps and noise, so the ratio's interval is that of paired differences. Training images.
        {_BANDS}""",
    ),
    "excess": (
        "Floor and excess of the error of x0",
        f"""For x0 drawn from the training images, E|x0_hat - x0|^2 is the floor E Var(x0|x_t), which no network
        avoids (black), plus the excess E|x0_hat - E[x0|x_t]|^2, which training left: in all pixels, and in the mean
        colour. Per pixel, in [-1, 1]^2. {_BANDS}""",
    ),
    "mse_heldout": (
        "Error on held-out images",
        f"""Mean squared error by timestep on images that no network was trained on; the optimum is shown only where
        the law of the data is known.
        {_BANDS}""",
    ),
    "signed_bias": (
        "The signed bias of one-step estimates",
        """Mean over {n} training images, and over the pixels of a channel, of x0_hat - E[x0|x_t], not clipped, in
        [-1, 1] ({weightings}; {seeds}). It estimates E[x0_hat - x0 | t] with less noise. The axis is linear within one
        grey level of 255 (shaded) and logarithmic beyond. Bold: {spread}. Thin: the seeds, where there are several;
        images and noise are the same for all.""",
    ),
    "bias_or_variance": (
        "Is the excess a bias or a variance?",
        """Excess E|x0_hat - E[x0|x_t]|^2 = the part that the networks of all training seeds have in common (solid)
        plus its variance over them (broken), on {n} training images, for {weightings}, {seeds}. Right: of the mean
        colour alone, as a part of the left. Bands: 95 % intervals over the images, for these networks. Both parts are
        estimated without bias; where an estimate is below zero there is no point.""",
    ),
    "bias_spectrum": (
        "The excess by spatial frequency",
        """The excess by band of spatial frequency at t = {times}, and the floor (black): the points of a line add up
        to the mean over pixels, and a band reaches up to the next one's lowest frequency. {n} training images,
        {weightings}. Lines, but for the floor: of the logarithm, {spread}. The floor is one for all networks; its band
        is 95 % over the images.""",
    ),
    "weights": (
        "Loss weights",
        f"""Weight of the squared error of epsilon by timestep for {{weightings}}, as defined and divided by its mean
        over the {{T}} timesteps (paper, figure 5 left). {_NO_DATA}""",
    ),
    "weight_share": (
        "Share of the weight by timestep",
        f"""Share of the whole weight of the epsilon loss that lies at timesteps up to t, for {{weightings}}.
        {_NO_DATA}""",
    ),
    "weights_units": (
        "The same weights in three parametrisations",
        f"""The same objectives as weights of a squared error of epsilon, of x0 (weight times SNR) and of v (weight
        times SNR / (1 + SNR)), each divided by the mean of its epsilon form. {_NO_DATA}""",
    ),
    "weights_logsnr": (
        "The weights on the axis of log SNR",
        f"""Weight of the epsilon loss per unit of ln SNR, w(t) / |d ln SNR/dt|, for {{weightings}}, the noisy end at
        the right; each has the integral 1 over the range of the schedule. Unlike the weight of a timestep, it can be
        compared between schedules. {_NO_DATA}""",
    ),
    "gradient_noise": (
        "Noise of the gradient, by the way to apply the weight",
        """Trace of the covariance of one batch's gradient over the squared norm of the expected gradient, for the
        weight as a factor on timesteps drawn uniformly or stratified, and as the density from which they are drawn.
        {batches} batches of {batch_size} images, the same images and noise for all; each weighting's own EMA network
        after {images_seen} images, first seed. Bars: 95 % from the spread of the variance over the batches; the error
        of the squared norm, which the ways of one weighting share, is not in them.{left_out}""",
    ),
    "samples_all": (
        "Samples of all weightings by number of steps",
        f"""Samples of {{weightings}} by number of sampling steps (paper, figure 5 right), networks of {{seeds}}.
        {_SAME_NOISE}""",
    ),
    "training_curves": (
        "Course of a training",
        """Loss (weighted, and the plain squared error of the network's target), gradient norm and speed of the run
        {run} against images seen. Faint: as logged; bold: running median over a twentieth of the run. One run: no
        error bars.""",
    ),
    "training_samples": (
        "Samples during training",
        """Samples of the EMA weights of the run {run} after so many images seen; a column starts from the noise of
        one seed. The first seeds, not chosen; no error bars.""",
    ),
    "distance_by_steps": (
        "Distance to real images by sampling steps",
        """Distance between {n} samples ({samplers}) and {n_reference} reference images by number of sampling steps.
        Lines: {spread}.{real}""",
    ),
    "distance_by_images": (
        "Distance to real images in the course of training",
        """Distance between {n} samples of the EMA weights ({samplers}) and {n_reference} reference images against
        images seen in training. Lines: {spread}.{real}""",
    ),
    "colour_by_steps": (
        "Colour shift by sampling steps",
        """Left: by how many Delta E (CIELAB) the mean colour of an image must move, on average, to turn the colours of
        {n} samples ({samplers}) into those of the data (Wasserstein distance of the per-image mean colours; at this
        number of images real ones are not at zero). Right: energy distance of 4x4 layouts of colour, unbiased. Lines:
        {spread}.{real}""",
    ),
    "colour_spread": (
        "Mean colour of the samples by sampling steps",
        """Mean over images and standard deviation over images of the per-image mean of red, green and blue, in
        [-1, 1], of {n} samples ({samplers}). Lines: {spread}.{real}""",
    ),
    "precision_recall": (
        "Precision and recall by sampling steps",
        """Precision (share of samples within the neighbourhoods of real images) and recall (the reverse) of {n}
        samples ({samplers}) against {n_reference} reference images. Lines: {spread}.{real}""",
    ),
    "learning_rates": (
        "The outcomes by learning rate",
        """Every outcome against the learning rate, for constant and debiased; all else is equal. Lines: geometric mean
        over {n} training seeds; bands: 95 % t-intervals of its logarithm. Bands beyond the panel are cut.""",
    ),
    "control_ratios": (
        "How much of the gain is the weighting?",
        """Ratio debiased / constant of every outcome (lower is better) under every control, paired by training seed.
        Squares: geometric mean over {n} training seeds; bars: 95 % t-intervals over them; dotted: the ratio as
        published; an arrow where a bar leaves the panel. Each arm's best learning rate is chosen on the same seeds.""",
    ),
    "paper_fid": (
        "The paper's FID curves, digitised",
        """The paper's own FID-10k, digitised from its figure, not measured here: (a) by training iterations, (b) by
        sampling steps; debiased is its "Ours". Bars: uncertainty of the digitising, {low:g} to {high:g}, mostly
        smaller than the markers; the paper shows no repeated seeds. The data set is not named there, FFHQ is
        probable. Not comparable with a distance in other features.""",
    ),
}
