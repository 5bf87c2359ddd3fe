"""The encoders of the reference folders, read once."""

import pytest

import smcdiff
from tests.text.folders import NAMES, REFERENCES


@pytest.fixture(scope="session")
def encoders():
    return {name: smcdiff.load_text_encoder(REFERENCES / name) for name in NAMES}
