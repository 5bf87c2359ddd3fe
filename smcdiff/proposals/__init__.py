"""Proposals of the particle filter: the samplers of the literature, and their successors."""

from smcdiff.proposals.base import Draw as Draw
from smcdiff.proposals.base import Proposal as Proposal
from smcdiff.proposals.base import Steered as Steered
from smcdiff.proposals.base import Weighed as Weighed
from smcdiff.proposals.base import check_fits as check_fits
from smcdiff.proposals.bootstrap import Bootstrap as Bootstrap
from smcdiff.proposals.choice import choose as choose
from smcdiff.proposals.conditioned import Conditioned as Conditioned
from smcdiff.proposals.conditioned import LanczosMomentMatched as LanczosMomentMatched
from smcdiff.proposals.conditioned import MCGDiff as MCGDiff
from smcdiff.proposals.conditioned import MomentMatched as MomentMatched
from smcdiff.proposals.daps import DAPS as DAPS
from smcdiff.proposals.ddrm import DDRM as DDRM
from smcdiff.proposals.fk_steering import Difference as Difference
from smcdiff.proposals.fk_steering import FKSteering as FKSteering
from smcdiff.proposals.fk_steering import Max as Max
from smcdiff.proposals.fk_steering import Potential as Potential
from smcdiff.proposals.fk_steering import Sum as Sum
from smcdiff.proposals.guidance import DPS as DPS
from smcdiff.proposals.guidance import PiGDM as PiGDM
from smcdiff.proposals.learned_means import Amortized as Amortized
from smcdiff.proposals.learned_means import ClassifierFree as ClassifierFree
from smcdiff.proposals.paths import FPS as FPS
from smcdiff.proposals.paths import SMCDiff as SMCDiff
from smcdiff.proposals.rejuvenated import Rejuvenated as Rejuvenated
from smcdiff.proposals.repaint import RePaint as RePaint
from smcdiff.proposals.replacement import Replacement as Replacement
from smcdiff.proposals.twisted import ClassifierGuidance as ClassifierGuidance
from smcdiff.proposals.twisted import KrylovMomentMatched as KrylovMomentMatched
from smcdiff.proposals.twisted import Twisted as Twisted
from smcdiff.proposals.twisted_path import TwistedPath as TwistedPath

SAMPLERS: tuple[type[Proposal], ...] = (
    Bootstrap, Replacement, SMCDiff, RePaint, DPS, PiGDM, Twisted, TwistedPath, MomentMatched,
    KrylovMomentMatched, LanczosMomentMatched, MCGDiff, FPS, DDRM, DAPS, Rejuvenated, FKSteering,
)  # fmt: skip
"""The samplers that need nothing but the NumPyro model, from the simplest to the most involved."""

CONDITIONAL_SAMPLERS: tuple[type[Proposal], ...] = (
    ClassifierGuidance, ClassifierFree, Amortized,
)  # fmt: skip
"""The samplers that need a learned conditional model besides."""
