"""Twists: guesses psi_t of p(y given x_t), by which draws are weighed and steered."""

from smcdiff.twists.base import Evaluation as Evaluation
from smcdiff.twists.base import MeanTwist as MeanTwist
from smcdiff.twists.base import Twist as Twist
from smcdiff.twists.classifier import Classifier as Classifier
from smcdiff.twists.krylov import Krylov as Krylov
from smcdiff.twists.lanczos import Lanczos as Lanczos
from smcdiff.twists.learned import Learned as Learned
from smcdiff.twists.likelihood import Flat as Flat
from smcdiff.twists.likelihood import Likelihood as Likelihood
from smcdiff.twists.moment_matched import MomentMatched as MomentMatched
from smcdiff.twists.noised import NoisedObservation as NoisedObservation
from smcdiff.twists.noised import PseudoInverse as PseudoInverse
from smcdiff.twists.widened import Widened as Widened
