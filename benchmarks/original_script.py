"""diffusers' own example, given by its path, as a loop that can be timed beside others in one process."""

import runpy
import sys
import threading

import diffusers
from diffusers import UNet2DModel
from diffusers.training_utils import EMAModel

from debiaslib.errors import InputError


class _Enough(Exception):
    """Ends the script."""


class ScriptLoop:
    """`train_unconditional.py` at `path`, in a thread that waits for its turn at the end of each step.

    The step's end is seen where the script updates its moving average, so everything that it does counts. It needs what
    the script needs: accelerate, datasets, tensorboard.
    """

    dtype = "float32"

    def __init__(self, path, setup):
        self.path, self.left = str(path), 0
        self.turn, self.done, self.failure = threading.Semaphore(0), threading.Semaphore(0), None
        UNet2DModel(**setup.unet).save_config(setup.scratch / "network")
        options = {
            "train_data_dir": setup.folder, "output_dir": setup.scratch / "script", "cache_dir": setup.scratch,
            "resolution": setup.resolution, "train_batch_size": setup.batch_size, "num_epochs": 10**6,
            "model_config_name_or_path": setup.scratch / "network", "logger": "tensorboard",
            "save_images_epochs": 10**9, "checkpointing_steps": 10**9, "dataloader_num_workers": setup.workers,
        }  # fmt: skip
        self.arguments = [*(f"--{key}={value}" for key, value in options.items()), "--use_ema", "--random_flip"]
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __call__(self, steps):
        self.left = steps
        if not self.thread.is_alive() and self.failure is None:
            self.thread.start()
        else:
            self.turn.release()
        self.done.acquire()
        if self.failure is not None:
            reason = " ".join(str(self.failure).split()) or type(self.failure).__name__
            raise InputError(f"the script {self.path} ended: {reason}")

    def close(self):
        """End the script."""
        self.left = None
        self.turn.release()
        self.thread.join()

    def _run(self):
        hand_over, given, whole = self._hand_over, sys.argv, diffusers.training_utils.EMAModel

        class Watched(EMAModel):
            def step(self, parameters):
                super().step(parameters)
                hand_over()

        diffusers.training_utils.EMAModel, sys.argv = Watched, [self.path, *self.arguments]
        try:
            runpy.run_path(self.path, run_name="__main__")
        except _Enough:
            pass
        except BaseException as error:  # argparse's SystemExit too: the waiting side must hear of it
            self.failure = error
        finally:
            diffusers.training_utils.EMAModel, sys.argv = whole, given
            self.done.release()

    def _hand_over(self):
        self.left -= 1
        if self.left == 0:
            self.done.release()
            self.turn.acquire()
            if self.left is None:
                raise _Enough
