"""Next-vector prediction: five networks behind one protocol.

`Forecaster(settings)` maps contexts (B, W, C) to raw predictions (B, C); `FORECASTERS` holds the
settings of the presets amn, lstm, gru, transformer and lvm-768d.
"""

from __future__ import annotations

from graphmert.forecast.feed import WindowFeed, WindowSource
from graphmert.forecast.forecaster import (
    FORECASTERS,
    Forecast,
    Forecaster,
    WindowBatch,
    count_parameters,
    parameter_report,
    settings_of,
)
from graphmert.forecast.leaves import (
    LeafBatch,
    LeafFeed,
    LeafForecaster,
    LeafSettings,
    LeafSource,
    known_tails,
)
from graphmert.forecast.networks import (
    AMNSettings,
    GRUSettings,
    LSTMSettings,
    LVMSettings,
    NetworkSettings,
    TransformerSettings,
)

__all__ = [
    "FORECASTERS",
    "AMNSettings",
    "Forecast",
    "Forecaster",
    "GRUSettings",
    "LSTMSettings",
    "LVMSettings",
    "LeafBatch",
    "LeafFeed",
    "LeafForecaster",
    "LeafSettings",
    "LeafSource",
    "NetworkSettings",
    "TransformerSettings",
    "WindowBatch",
    "WindowFeed",
    "WindowSource",
    "count_parameters",
    "known_tails",
    "parameter_report",
    "settings_of",
]
