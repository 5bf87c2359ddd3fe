"""Draws of captions that are kept in a folder, and what pictures of captions are scored by.

Shared by the experiments with captioned shapes.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff import shapes, thresholding
from smcdiff.base._files import claim, replacing
from smcdiff.base._pixels import to_bytes, to_unit_range
from smcdiff.diagnostics import frechet_distance, kernel_distance
from smcdiff.priors import DiffusionPrior
from smcdiff.store._folder import CONFIG
from smcdiff.store.clip import Clip
from smcdiff.store.image_features import ImageFeatures
from smcdiff.store.shipped import model_folder

THRESHOLDS = {
    "none": None,
    "static": thresholding.Static(),
    "dynamic": thresholding.Dynamic(0.995),
    # The background of shapes is a grey of 0.4, which plain dynamic thresholding scales with the
    # rest.
    "dynamic about grey": thresholding.Dynamic(0.995, background=shapes.GREY),
}
DISTANCES = ("frechet", "kernel")
UNREADABLE = "unreadable"
MISTAKES = (UNREADABLE, *shapes.MISTAKES)
"""What may be wrong with a picture; unreadable is one with something of no colour or shape."""
CAPTIONS_KEY, NOISE_KEY, REAL_KEY = (jax.random.key(seed) for seed in (201, 202, 203))
"""Keys that no training uses."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is computed.

    Attributes:
        n: captions, and pictures of each cell.
        steps: of the sampler.
        chunk: draws at once.
        components: of the Frechet distance.
        floors: further sets of real pictures.
    """

    n: int = 512
    steps: int = 100
    chunk: int = 64
    components: int = 64
    floors: int = 4

    def claim(self, cache: Path, weights: dict[str, str]) -> None:
        """Makes the folder of draws, or compares what its draws are of.

        Args:
            cache: the folder.
            weights: of the networks by their parts, see `weights_of`.

        Raises:
            InputError: its draws are of other networks or of another size.
        """
        cache.mkdir(parents=True, exist_ok=True)
        sizes = {name: str(getattr(self, name)) for name in ("n", "steps", "chunk")}
        claim(cache / "of.json", weights | sizes, "prior or size")


def parsed(
    parser: argparse.ArgumentParser, experiment: Path, arguments: list[str] | None
) -> argparse.Namespace:
    """The options, with --smoke and --output, and the command that gives them as ``command``.

    Args:
        parser: of the other options.
        experiment: folder of the experiment.
        arguments: in place of those of the command line.
    """
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in about a minute")
    parser.add_argument("--output", type=Path, default=experiment)
    options = parser.parse_args(arguments)
    told = sys.argv[1:] if arguments is None else arguments
    options.command = shlex.join(["python", f"experiments/{experiment.name}/run.py", *told])
    return options


def weights_of(model: Path | None) -> str:
    """The hash of a model's weights, by its folder or name; without one they are random."""
    if model is None:
        return "random"
    return json.loads((model_folder(model) / CONFIG).read_text())["sha256"]


def drawn_captions(number: int, part: shapes.Split) -> tuple[str, ...]:
    """Random ones of a part, half of them of one group; the same for every prior."""
    return shapes.random_captions(CAPTIONS_KEY, number, part)


@jax.jit
def sample(keys, prior: DiffusionPrior, text, strengths, threshold):
    """Draws of captions, as the encoder gives them; one program for all captions and strengths."""
    return jax.vmap(lambda key, *asked: prior.given(*asked, threshold).sample(key))(
        keys, text, strengths
    )


def in_chunks(
    make: Callable[[np.ndarray], jax.Array], stem: str, size: Size, cache: Path
) -> np.ndarray:
    """Pictures as bytes, (n, h, w, 3), chunk by chunk out of the cache or into it.

    Args:
        make: draws those of some numbers, from 0; the last chunk is filled up with the first ones,
            so that all have one size.
        stem: of the files.
        size: how many in all, and in a chunk.
        cache: the folder of the files.
    """
    found, start = [], time.time()
    for first in range(0, size.n, size.chunk):
        file = cache / f"{stem}-{first:05d}.npy"
        if not file.exists():
            drawn = np.asarray(make(np.arange(first, first + size.chunk) % size.n))
            if bad := int(np.isnan(drawn).any(axis=(1, 2, 3)).sum()):
                print(f"{bad} draws of {file.stem} have NaN, which is black below", flush=True)
            with replacing(file) as temporary, temporary.open("wb") as content:
                np.save(content, to_bytes(drawn)[: size.n - first])
            seconds = time.time() - start
            print(f"  {file.stem}: {seconds:.0f} s since the cell began", flush=True)
        found.append(np.load(file))
    return np.concatenate(found)


def draws(prior: DiffusionPrior, text, strength: float, name: str, size: Size, cache: Path):
    """The pictures of one strength and threshold, one of each caption, as bytes."""
    keys = jax.random.split(NOISE_KEY, size.n)

    def make(chosen):
        of_chunk = jax.tree.map(lambda leaf: leaf[chosen], text)
        strengths = jnp.full(len(chosen), strength)
        return sample(keys[chosen], prior, of_chunk, strengths, THRESHOLDS[name])

    return in_chunks(make, f"{name.replace(' ', '_')}-{strength:g}", size, cache)


def real_pictures(captions: Sequence[str], number: int, pixels: int) -> np.ndarray:
    """The number-th set of them as bytes; one number gives the same scenes at every resolution."""
    key = jax.random.fold_in(REAL_KEY, number)
    return to_bytes(np.asarray(shapes.render_batch(captions, key, pixels)))


@dataclasses.dataclass(frozen=True)
class Judge:
    """What pictures are scored by.

    Attributes:
        captions: one of each picture.
        clip: towers, or None.
        features: of pictures.
        reference: features of real pictures of the captions.
        components: of the Frechet distance.
    """

    captions: tuple[str, ...]
    clip: Clip | None
    features: ImageFeatures
    reference: np.ndarray
    components: int

    @classmethod
    def of(
        cls, captions: tuple[str, ...], clip: Clip | None, features: ImageFeatures, pixels: int,
        components: int,
    ) -> Judge:  # fmt: skip
        """With real pictures of a resolution."""
        known = jnp.asarray(to_unit_range(real_pictures(captions, 0, pixels)))
        return cls(captions, clip, features, np.asarray(features(known)), components)

    def scores(self, pictures: np.ndarray) -> dict:
        """Of 8-bit pictures, one of each caption."""
        images = jnp.asarray(to_unit_range(pictures))
        found = np.asarray(self.features(images))
        return checked(pictures, self.captions) | {
            "clip": None if self.clip is None else cosine(self.clip, images, self.captions),
            "frechet": frechet_distance(found, self.reference, self.components),
            "kernel": 1e3 * kernel_distance(found, self.reference),
        }

    def real_scores(self, pixels: int, floors: int) -> dict:
        """Of further real pictures: means over the sets, and the spread of their distances."""
        sets = [self.scores(real_pictures(self.captions, 1 + i, pixels)) for i in range(floors)]
        kinds = sets[0]["by_kind"]
        found = {"by_kind": {k: float(np.mean([s["by_kind"][k] for s in sets])) for k in kinds}}
        for name in ("accuracy", "clip", "frechet", "kernel"):
            values = [scores[name] for scores in sets]
            found[name] = None if None in values else float(np.mean(values))
        spread = {name: float(np.std([s[name] for s in sets], ddof=1)) for name in DISTANCES}
        return found | {"spread": spread}


def mistakes(pictures: np.ndarray, captions: Iterable[str]) -> list[tuple[str, ...]]:
    """What is wrong with each of some 8-bit pictures by the checker, some of `MISTAKES`."""
    found = []
    for image, caption in zip(to_unit_range(pictures), captions, strict=True):
        scene = shapes.read(image)
        found.append((UNREADABLE,) if scene is None else scene.mistakes(shapes.parse(caption)))
    return found


def checked(pictures: np.ndarray, captions: Sequence[str]) -> dict:
    """How many 8-bit pictures are right by the checker, in all and by kind of caption."""
    by_kind = collections.defaultdict(list)
    for caption, wrong in zip(captions, mistakes(pictures, captions), strict=True):
        by_kind[shapes.parse(caption).form].append(not wrong)
    return {
        "accuracy": float(np.mean(sum(by_kind.values(), []))),
        "by_kind": {k: float(np.mean(by_kind[k])) for k in shapes.FORMS if by_kind[k]},
    }


def cosine(clip: Clip, images, captions: tuple[str, ...]) -> float:
    """Mean over pictures with their own captions."""
    return float(jnp.mean(jnp.sum(clip.image(images) * clip.text(captions), axis=-1)))


def share_cell(share: float, n: int) -> str:
    """A share of n with its standard error."""
    return f"{share:.1%} +- {np.sqrt(share * (1.0 - share) / n):.1%}"


def kind_cells(by_kind: dict[str, float]) -> list[str]:
    """Shares by kind of caption."""
    return [f"{by_kind[kind]:.1%}" if kind in by_kind else "-" for kind in shapes.FORMS]


def distance_cells(scores: dict) -> list[str]:
    """Both distances, with their spread where there is one."""
    spread, cells = scores.get("spread", {}), []
    for key, digits in zip(DISTANCES, (3, 2), strict=True):
        cell = f"{scores[key]:.{digits}f}"
        cells.append(f"{cell} (s.d. {spread[key]:.{digits}f})" if spread else cell)
    return cells


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
