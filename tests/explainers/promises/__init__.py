"""What every explainer must keep, one file per promise; `tests.explainers.battery` asks for all."""
