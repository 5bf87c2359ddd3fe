"""Captioned pictures of coloured shapes: a grammar, a renderer, and a checker that scores them."""

from smcdiff.shapes.checker import check as check
from smcdiff.shapes.checker import explain as explain
from smcdiff.shapes.checker import read as read
from smcdiff.shapes.grammar import FORMS as FORMS
from smcdiff.shapes.grammar import Caption as Caption
from smcdiff.shapes.grammar import Colour as Colour
from smcdiff.shapes.grammar import Group as Group
from smcdiff.shapes.grammar import Relation as Relation
from smcdiff.shapes.grammar import Shape as Shape
from smcdiff.shapes.grammar import changed_word as changed_word
from smcdiff.shapes.grammar import one_word_changes as one_word_changes
from smcdiff.shapes.grammar import parse as parse
from smcdiff.shapes.renderer import GREY as GREY
from smcdiff.shapes.renderer import PALETTE as PALETTE
from smcdiff.shapes.renderer import WHITE as WHITE
from smcdiff.shapes.renderer import render as render
from smcdiff.shapes.renderer import render_batch as render_batch
from smcdiff.shapes.scene import MISTAKES as MISTAKES
from smcdiff.shapes.scene import Scene as Scene
from smcdiff.shapes.scene import SeenObject as SeenObject
from smcdiff.shapes.splits import Split as Split
from smcdiff.shapes.splits import captions as captions
from smcdiff.shapes.splits import random_captions as random_captions
from smcdiff.shapes.splits import split as split
