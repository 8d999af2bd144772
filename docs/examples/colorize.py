"""Colorization by pix2pix: a U-Net predicts the colors of a gray picture, and a critic says whether they look real.

The model makes its inputs gray itself, so that any photographs train it, without labels. Brightness is kept as it is:
what is predicted are two channels of chroma.

Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", arXiv:1611.07004. Unlike the
paper, chroma is that of YCbCr and not of Lab (a linear map), upsampling is a nearest-pixel resize and a convolution,
there is no dropout (a picture always gets the same colors), and the critic's patches are smaller, as the pictures are.
Letters: N images, H x W padded input pixels, h x w patches of the critic.

    vertebra train docs/examples/colorize.yaml -o runs/colorize
    vertebra predict runs/colorize/recipe.yaml IMAGE -w runs/colorize/final.pth --save pictures,arrays
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra import EVALUATORS, FORMATS, MODELS, BaseModel, Batch, Evaluator, Format, Metadata
from vertebra.data import Dataset, read_image, resolve_path
from vertebra.errors import DataError
from vertebra.runtime import gather_to_main, on_main_process

__all__ = ["ColorEvaluator", "Colorizer", "PatchCritic", "PictureFolder", "UNet", "colorfulness", "from_ycc", "to_ycc"]

BLUE, RED = 1.772, 1.402  # ITU-R BT.601: Cb = (B - Y) / 1.772, Cr = (R - Y) / 1.402, both in [-0.5, 0.5]
LUMA = (0.299, 0.587, 0.114)


@MODELS.register()
class Colorizer(BaseModel):
    """Predicts `picture` (3, height, width) uint8 RGB, the image in colors of the model's own.

    Args:
        width: channels of the generator's and the critic's first layers.
        depth: how often the generator halves the picture.
        pixel_weight: of the L1 loss on chroma, beside the adversarial loss.
    """

    task_outputs = ("picture",)

    def __init__(self, *, width: int = 32, depth: int = 4, pixel_weight: float = 100.0) -> None:
        super().__init__()
        self.generator = UNet(1, 2, width, depth)
        self.critic = PatchCritic(width)
        self.depth = depth
        self.pixel_weight = pixel_weight

    @property
    def size_divisibility(self) -> int:
        return 2**self.depth

    def network(self, images: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) to `gray` (N, 1, H, W) in [0, 1] and `chroma` (N, 2, H, W) in [-1, 1], which is predicted
        from `gray` alone."""
        gray = self.pixels_of(images)[:, :1]
        return {"gray": gray, "chroma": self.generator(2 * gray - 1).float().tanh()}

    def pixels_of(self, images: Tensor) -> Tensor:
        """Normalized images back to pixels, as brightness and chroma (N, 3, H, W)."""
        return to_ycc((images * self.pixel_std + self.pixel_mean) / 255)

    def training_step(self, batch: Batch, step) -> dict[str, Tensor]:
        """Equation 4: the generator fools the critic and stays near the true colors; then the critic learns."""
        valid = ~batch.padding_mask[:, None]  # (N, 1, H, W)
        raw = self.compute(batch)
        true, made = self.pixels_of(batch.images)[:, 1:] * valid, raw["chroma"] * valid  # (N, 2, H, W)
        pixels = (made - true).abs().sum() / (2 * valid.sum())
        fooled = self.judged(raw["gray"], made, valid, real=True)
        step.minimize("generator", self.pixel_weight * pixels + fooled)
        told = self.judged(raw["gray"], true, valid, real=True)
        told = (told + self.judged(raw["gray"], made.detach(), valid, real=False)) / 2  # section 3.3: a slower critic
        step.minimize("critic", told)
        return {"pixels": pixels, "fooled": fooled, "critic": told}

    def judged(self, gray: Tensor, chroma: Tensor, valid: Tensor, *, real: bool) -> Tensor:
        """Cross entropy of the critic's answer, over the patches whose center is not padding, where the right answer is
        `real`. For the generator it is the log D of section 3.3, which has a gradient where the critic is certain."""
        logits = self.critic(torch.cat((2 * gray - 1, chroma), dim=1)).float()  # (N, 1, h, w)
        inside = F.interpolate(valid.float(), logits.shape[-2:])
        return (F.softplus(-logits if real else logits) * inside).sum() / inside.sum().clamp(min=1)

    def predict(self, raw: dict[str, Tensor], batch: Batch) -> list[dict[str, Tensor]]:
        pictures = self.export_raw(raw, batch.padded_size)["picture"]
        outputs = []
        for picture, (height, width), original in zip(pictures, batch.image_sizes, batch.original_sizes, strict=True):
            resized = F.interpolate(picture[None, :, :height, :width], original, mode="bilinear")[0]
            outputs.append({"picture": resized.mul(255).round().to(torch.uint8)})
        return outputs

    def export_raw(self, raw: dict[str, Tensor], image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`picture` (N, 3, H, W) RGB in [0, 1]."""
        return {"picture": from_ycc(torch.cat((raw["gray"], raw["chroma"]), dim=1)).clamp(0, 1)}

    def draw(self, picture: np.ndarray, output: dict, metadata) -> np.ndarray:
        return output["picture"].permute(1, 2, 0).numpy()


class UNet(nn.Module):
    """Section 3.2.1: convolutions of stride 2 down and back, each level joined with the one of its size.

    Takes (N, in_channels, H, W) whose sides are multiples of 2 ** depth, and returns (N, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, depth: int) -> None:
        super().__init__()
        channels = [in_channels, *(width * min(2**level, 8) for level in range(depth))]  # at stride 1, 2, 4, ...
        pairs = list(itertools.pairwise(channels))  # of a level and the next coarser one
        self.down = nn.ModuleList(block(fine, coarse, 2, norm=fine != in_channels) for fine, coarse in pairs)
        self.up = nn.ModuleList(block(fine + coarse, max(fine, width), 1) for fine, coarse in reversed(pairs))
        self.last = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [x]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up, skip in zip(self.up, reversed(levels), strict=True):
            x = up(torch.cat((F.interpolate(x, scale_factor=2.0), skip), dim=1))
        return self.last(x)


class PatchCritic(nn.Sequential):
    """Section 3.2.2: brightness and chroma (N, 3, H, W) to a logit for each patch of 26 x 26 pixels (N, 1, h, w), four
    pixels apart: whether its colors are real."""

    def __init__(self, width: int) -> None:
        super().__init__(
            block(3, width, 2, norm=False),
            block(width, 2 * width, 2),
            block(2 * width, 4 * width, 1),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )


def block(in_channels: int, out_channels: int, stride: int, *, norm: bool = True) -> nn.Sequential:
    """A convolution to `1 / stride` of the size, BatchNorm (not in the first layers: section 6.1) and leaky ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, stride + 2, stride, padding=1, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels) if norm else nn.Identity(), nn.LeakyReLU(0.2))


def to_ycc(rgb: Tensor) -> Tensor:
    """RGB (..., 3, H, W) in [0, 1] to brightness in [0, 1] and twice Cb and Cr, in [-1, 1]."""
    red, green, blue = rgb.unbind(-3)  # sums and not a matrix product, which autocast would round to bfloat16
    y = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return torch.stack((y, 2 * (blue - y) / BLUE, 2 * (red - y) / RED), dim=-3)


def from_ycc(ycc: Tensor) -> Tensor:
    """The inverse of `to_ycc`; where there is no such color, outside of [0, 1]."""
    y, cb, cr = ycc.unbind(-3)
    red, blue = y + cr * RED / 2, y + cb * BLUE / 2
    return torch.stack((red, (y - LUMA[0] * red - LUMA[2] * blue) / LUMA[1], blue), dim=-3)


@EVALUATORS.register()
class ColorEvaluator(Evaluator):
    """Predicted pictures beside their files: means over the images.

    color/psnr: in dB. color/chroma_error: mean absolute difference of Cb and Cr, as a share of their range.
    color/colorfulness: of the predictions, divided by that of the files; below 1 where colors are pale.
    """

    def reset(self) -> None:
        self.rows: list[list[float]] = []  # PSNR, chroma error, colorfulness predicted and true, of each image

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for sample, output in zip(inputs, outputs, strict=True):
            true = torch.from_numpy(read_image(sample["file_name"])).permute(2, 0, 1).double()  # (3, height, width)
            made = output["picture"].cpu().double()
            error = max(float((made - true).square().mean()), 1 / 12)  # that of rounding, where nothing differs
            chroma = (to_ycc(made / 255) - to_ycc(true / 255))[1:].abs().mean() / 2
            psnr = 10 * math.log10(255**2 / error)
            self.rows.append([psnr, float(chroma), colorfulness(made), colorfulness(true)])

    def evaluate(self) -> dict[str, float | None]:
        gathered = gather_to_main(self.rows)  # None except in the main process
        psnr, chroma, made, true = on_main_process(
            lambda: np.concatenate([rows for rows in gathered if rows]).mean(axis=0).tolist()
        )
        if not true:
            self.reasons["color/colorfulness"] = "all files are gray"
        return {"color/psnr": psnr, "color/chroma_error": chroma, "color/colorfulness": made / true if true else None}


def colorfulness(rgb: Tensor) -> float:
    """Of a picture (3, H, W), 0 to 255: about 15 looks slightly, 60 quite colorful. Source: Hasler, Süsstrunk,
    Human Vision and Electronic Imaging VIII, SPIE 5007, 2003, section 7."""
    red, green, blue = rgb
    opponents = torch.stack((red - green, (red + green) / 2 - blue)).flatten(1)  # (2, pixels)
    return float(opponents.std(dim=1, correction=0).norm() + 0.3 * opponents.mean(dim=1).norm())


@FORMATS.register()
class PictureFolder(Format):
    """The JPEG and PNG files of a folder, without annotations.

    Args:
        images: the folder, relative to `data.root`.
    """

    def __init__(self, images: str) -> None:
        self.images = images

    def load(self, root: str | None = None) -> Dataset:
        folder = resolve_path(self.images, root)
        files = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
        if not files:
            raise DataError(f"{folder}: there are no JPEG or PNG files in this folder")
        dicts = []
        for path in files:
            height, width = read_image(path).shape[:2]
            dicts.append({"file_name": str(path), "image_id": path.name, "height": height, "width": width})
        return Dataset(dicts, Metadata(folder.name))
