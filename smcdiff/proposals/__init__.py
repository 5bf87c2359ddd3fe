"""Proposals of the particle filter: one sampler of the literature a file."""

from smcdiff.proposals.base import Proposal as Proposal
from smcdiff.proposals.base import ReverseModel as ReverseModel
from smcdiff.proposals.bootstrap import Bootstrap as Bootstrap
from smcdiff.proposals.choice import choose as choose
from smcdiff.proposals.moment_matched import MomentMatched as MomentMatched
from smcdiff.proposals.replacement import Replacement as Replacement
from smcdiff.proposals.replacement import SMCDiff as SMCDiff
from smcdiff.proposals.twisted import Twisted as Twisted
