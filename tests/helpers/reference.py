"""State dicts of the reference implementation."""

from imtrans.convert import junyanz


def load_reference(network, state):
    """Load `state` into `network`, which must have the same architecture."""
    network.load_state_dict(junyanz._matched(network, junyanz._clean(state)))
