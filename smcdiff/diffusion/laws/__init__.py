"""Laws of x_s given x_t: the reverse kernels, and what a sampler may make of them."""

from smcdiff.diffusion.laws.conditioned import Conditioned as Conditioned
from smcdiff.diffusion.laws.conditioned import ConditionedAlong as ConditionedAlong
from smcdiff.diffusion.laws.conditioned import conditioned_along as conditioned_along
from smcdiff.diffusion.laws.coordinates import SingularCoordinates as SingularCoordinates
from smcdiff.diffusion.laws.defended import Defended as Defended
from smcdiff.diffusion.laws.law import Law as Law
from smcdiff.diffusion.laws.low_rank import DiagonalPlus as DiagonalPlus
from smcdiff.diffusion.laws.low_rank import LowRank as LowRank
from smcdiff.diffusion.laws.low_rank import LowRankConditioned as LowRankConditioned
from smcdiff.diffusion.laws.mixture import Mixture as Mixture
from smcdiff.diffusion.laws.pinned import PinnedAlong as PinnedAlong
from smcdiff.diffusion.laws.pinned import PinnedCoordinates as PinnedCoordinates
from smcdiff.diffusion.laws.pinned import PinnedDirections as PinnedDirections
from smcdiff.diffusion.laws.pinned import pinned as pinned
from smcdiff.diffusion.laws.substituted import AlongDirections as AlongDirections
from smcdiff.diffusion.laws.substituted import Substituted as Substituted
from smcdiff.diffusion.laws.tilted import Tilted as Tilted
from smcdiff.diffusion.laws.translated import Translated as Translated
