"""Captioned pictures to learn from."""

import json

import numpy as np

WORDS = ("red", "green", "blue", "two", "four", "circle", "square", "triangle")


def columns(folder):
    """Images of 4 x 4 x 3 with one bright column, whose place is in the caption."""
    places = np.random.default_rng(0).integers(0, 4, 40)
    images = np.zeros((40, 4, 4, 3), np.uint8)
    images[np.arange(40), :, places] = 255
    np.savez(folder / "pictures.npz", images=images)
    captions = [f"a {WORDS[place]} {WORDS[5 + i % 3]}" for i, place in enumerate(places)]
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder
