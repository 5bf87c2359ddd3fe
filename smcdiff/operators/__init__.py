"""Linear operators: callables on one event, with an adjoint, shapes and a decomposition."""

from smcdiff.operators.algebra import SVD as SVD
from smcdiff.operators.algebra import Composition as Composition
from smcdiff.operators.algebra import Dense as Dense
from smcdiff.operators.algebra import LinearOperator as LinearOperator
from smcdiff.operators.algebra import Reshape as Reshape
from smcdiff.operators.algebra import Scaled as Scaled
from smcdiff.operators.base import LARGEST_DENSE as LARGEST_DENSE
from smcdiff.operators.colour import ColourMix as ColourMix
from smcdiff.operators.convolution import Convolution as Convolution
from smcdiff.operators.convolution import MotionBlur as MotionBlur
from smcdiff.operators.fourier import MaskedFourier as MaskedFourier
from smcdiff.operators.kronecker import Kronecker as Kronecker
from smcdiff.operators.mask import Mask as Mask
from smcdiff.operators.separable import BicubicDownsample as BicubicDownsample
from smcdiff.operators.separable import BlockDownsample as BlockDownsample
from smcdiff.operators.separable import GaussianBlur as GaussianBlur
from smcdiff.operators.separable import Separable as Separable
from smcdiff.operators.stacked import Stacked as Stacked
from smcdiff.operators.structure import Rows as Rows
from smcdiff.operators.structure import Structure as Structure
