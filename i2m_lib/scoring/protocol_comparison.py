"""One prediction under several protocols: what a number owes to the way it was measured."""

from collections.abc import Mapping

import pandas as pd

from i2m_lib.geometry.surfaces import Surface

from .protocols import Protocol


def cards(protocols: Mapping[str, Protocol]) -> pd.DataFrame:
    """The metric cards in short, a row for each protocol: scale, alignment, samples, chamfer, F thresholds."""
    rows = []
    for p in protocols.values():
        chamfers = {name[8:].upper(): x for name, x in p.metrics.items() if name.startswith("chamfer_")}
        chamfer = ", ".join(f"{name} x{x:g}" for name, x in chamfers.items())
        thresholds = ", ".join(f"{t:.3g}" for name, t in p.metrics.items() if name.startswith("f_"))
        samples = f"{p.n_samples:,}" if p.n_samples else "vertices"
        rows.append((p.name, p.scale, p.alignment, samples, chamfer or "-", thresholds or "-"))
    columns = ["protocol", "scale", "alignment", "samples", "chamfer", "F thresholds"]
    return pd.DataFrame(rows, columns=columns).set_index("protocol")


def under_all(prediction: Surface, truth: Surface, protocols: Mapping[str, Protocol], *, seed: int) -> pd.DataFrame:
    """Scores of a predicted mesh against the true one under each protocol, and those of the truth itself: columns
    protocol, metric, value, floor. Raises ValueError if the truth has no surface."""
    rows = []
    for name, protocol in protocols.items():
        target = protocol.prepare(*truth, seed)
        value, floor = target.score(*prediction, seed), target.floor(seed)
        rows += [(name, metric, value[metric], floor[metric]) for metric in value]
    return pd.DataFrame(rows, columns=["protocol", "metric", "value", "floor"])
