"""Linear operators: callables on one event, with an adjoint and shapes."""

from smcdiff.operators.base import LinearOperator as LinearOperator
from smcdiff.operators.blur import GaussianBlur as GaussianBlur
from smcdiff.operators.dense import Dense as Dense
from smcdiff.operators.downsample import BlockDownsample as BlockDownsample
from smcdiff.operators.mask import Mask as Mask
