"""Linear operators: callables on one event, with an adjoint, shapes and a decomposition."""

from smcdiff.operators.base import SVD as SVD
from smcdiff.operators.base import Composition as Composition
from smcdiff.operators.base import LinearOperator as LinearOperator
from smcdiff.operators.colour import ColourMix as ColourMix
from smcdiff.operators.convolution import Convolution as Convolution
from smcdiff.operators.convolution import MotionBlur as MotionBlur
from smcdiff.operators.dense import Dense as Dense
from smcdiff.operators.fourier import MaskedFourier as MaskedFourier
from smcdiff.operators.mask import Mask as Mask
from smcdiff.operators.reshape import Reshape as Reshape
from smcdiff.operators.separable import BicubicDownsample as BicubicDownsample
from smcdiff.operators.separable import BlockDownsample as BlockDownsample
from smcdiff.operators.separable import GaussianBlur as GaussianBlur
from smcdiff.operators.separable import Separable as Separable
