"""Folders of classifiers, amortised networks and twists that are wrong."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from smcdiff import InputError, load_classifier, load_conditional, load_twist
from smcdiff.store.twist import save_twist
from tests.store.priors import twist_network


@pytest.mark.parametrize(
    ("kind", "load"),
    [("classifier", load_classifier), ("conditional", load_conditional), ("twist", load_twist)],
)
def test_damaged_configuration(tmp_path, kind, load):
    (tmp_path / "config.json").write_text(json.dumps({"kind": kind, "network": {}}))
    with pytest.raises(InputError, match=r"config\.json: missing or wrong entry"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        load(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"of kind 'prior', not '{kind}'"):
        load("models/mnist")


def test_twist_survives_the_folder(tmp_path):
    """A scalar observation of an image."""
    network = twist_network((4, 4, 1), ())
    twist = load_twist(save_twist(network, tmp_path / "twist", "", {}))
    y = jnp.asarray(0.3)
    for name in ("events", "event_variance", "observation_scale", "log_snr_ends"):
        np.testing.assert_array_equal(getattr(twist.network, name), getattr(network, name))
    found, own = (net.given(y).features for net in (twist.network, network))
    np.testing.assert_allclose(found, own, rtol=1e-5)
    file = tmp_path / "twist" / "config.json"
    config = json.loads(file.read_text())
    for key, value in (("event_shape", [4, 2, 1]), ("width", 8), ("log_snr_ends", "ab")):
        file.write_text(json.dumps({**config, key: value}))
        with pytest.raises(InputError, match=r"config\.json"):
            load_twist(tmp_path / "twist")
