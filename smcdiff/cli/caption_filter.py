"""``smcdiff draw --particles``: the caption as an observation that the particle filter weighs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpyro
import numpyro.distributions as dist

from smcdiff import proposals, shapes, twists
from smcdiff.base._progress import Progress
from smcdiff.cli.captioned import Guidance, naming
from smcdiff.errors import InputError
from smcdiff.priors import DiffusionPrior, ImplicitClassifier
from smcdiff.sampler.smc import SMC
from smcdiff.store._captions import GRAMMARS, CaptionReader
from smcdiff.store.clip import Clip, load_clip

_CHAINS = 4
"""Enough to see whether they agree."""
_TWIST_LEVELS = 4
"""Of the ratio that only guides: a quarter of the likelihood's."""
_SHIPPED = {"shapes": "shapes-clip"}
"""By closed grammar: the towers that ship."""
_NO_TOWERS = "none"
_CHANGES = {"shapes": shapes.one_word_changes}
"""By closed grammar: the captions that one is told apart from."""


@dataclasses.dataclass(frozen=True)
class Observed:
    """A caption observed.

    Attributes:
        model: the NumPyro model.
        arguments: of the model.
        proposal: where the filter looks.
        words: what the likelihood is, for the summary.
    """

    model: Callable
    arguments: tuple[Any, ...]
    proposal: proposals.Proposal
    words: str


@dataclasses.dataclass(frozen=True)
class CaptionFilter:
    """The options of ``smcdiff draw`` that say how a caption is weighed; None is not given."""

    particles: int | None
    chains: int | None
    batch_size: int | None
    steps: int
    clip: str | None
    against: str | None

    def check(self) -> None:
        """Raises ``InputError`` where options do not go together, or a number is out of range."""
        if self.particles is not None:
            self.smc(_from_towers, None, False)
            return
        for option in ("chains", "batch_size", "clip", "against"):
            if getattr(self, option) is not None:
                raise InputError(
                    f"--{option.replace('_', '-')} goes with --particles, which weighs the"
                    " caption; add it, for example --particles 64"
                )

    def smc(
        self, model: Callable, proposal: proposals.Proposal | None, progress: bool | Progress
    ) -> SMC:
        """The sampler, which calls ``progress`` between two pieces of a run."""
        assert self.particles is not None
        return SMC(
            model, proposal, num_particles=self.particles, num_steps=self.steps,
            num_chains=_CHAINS if self.chains is None else self.chains,
            batch_size=self.batch_size, progress_bar=progress,
        )  # fmt: skip

    def observe(self, prior: DiffusionPrior, caption: str, guidance: Guidance) -> Observed:
        """The caption as an observation of a picture, by CLIP or by the prior itself.

        Args:
            prior: of pictures, without a caption.
            caption: what is observed.
            guidance: of the proposal; the target does not know it.

        Raises:
            InputError: towers that do not fit the prior, or alternatives that are missing or cannot
                be read.
        """
        conditional = prior.given(caption)
        found = self._towers(prior, caption)
        if found is None:
            if self.against is not None:
                raise InputError(
                    "--against names what CLIP tells the caption apart from; add --clip FOLDER, or"
                    " leave it out"
                )
            likelihood = ImplicitClassifier(conditional, prior)
            rough = ImplicitClassifier(conditional, prior, num_levels=_TWIST_LEVELS)
            model, arguments, twist = _from_ratio, (prior, likelihood), twists.Classifier(rough)
            words = "log p(x given caption) - log p(x), of the prior's own network"
        else:
            name, towers = found
            with naming(f"--clip {name}"):
                text = towers.reader.encoded(self._alternatives(towers.reader, caption))
            model, arguments, twist = _from_towers, (prior, towers, text), twists.Likelihood()
            words = f"{name}, against {len(text.mask) - 1} other captions"
        proposal = proposals.ClassifierFree(
            conditional, guidance.strength, threshold=guidance.threshold, twist=twist
        )
        return Observed(model, arguments, proposal, words)

    def _towers(self, prior: DiffusionPrior, caption: str) -> tuple[str, Clip] | None:
        """Name and towers of --clip; where it is left out, those that ship, if they suit."""
        name = _shipped(prior, caption) if self.clip is None else self.clip
        if name is None or name == _NO_TOWERS:
            return None
        towers = load_clip(name)
        if towers.event_shape == prior.event_shape:
            return name, towers
        if self.clip is None:
            return None
        raise InputError(
            f"--clip {name}: of pictures of shape {towers.event_shape}, and --prior makes"
            f" {prior.event_shape}; train both on the same"
        )

    def _alternatives(self, reader: CaptionReader, caption: str) -> list[str]:
        """The caption, and after it those that it is told apart from."""
        write = GRAMMARS.get(reader.grammar or "", str)
        if self.against is not None:
            others = [write(part.strip()) for part in self.against.split(";") if part.strip()]
        elif reader.grammar in _CHANGES:
            others = list(_CHANGES[reader.grammar](caption))
        else:
            raise InputError(
                "its captions are of no closed grammar, whose captions of one changed word would be"
                " the alternatives; name them: --against 'a dog;a cat'"
            )
        every = list(dict.fromkeys([write(caption), *others]))
        if len(every) == 1:
            raise InputError("--against names no other caption; give at least one: 'a dog;a cat'")
        return every


def _shipped(prior: DiffusionPrior, caption: str) -> str | None:
    """Towers that ship and know what the caption brings together.

    They score hardly any picture of a combination right that their training held back.
    """
    name = _SHIPPED.get(prior.denoiser.reader.grammar)
    if name is None or shapes.split(caption) is shapes.Split.UNSEEN_COMBINATION:
        return None
    return name


def _from_towers(prior, towers, alternatives):
    """Which of the alternatives a picture shows; the first was observed."""
    x = numpyro.sample("x", prior)
    logits = towers.log_probability(x, alternatives)
    numpyro.sample("caption", dist.CategoricalLogits(logits), obs=0)


def _from_ratio(prior, likelihood):
    """How much likelier a picture is given the caption."""
    x = numpyro.sample("x", prior)
    numpyro.factor("caption", likelihood(x))
