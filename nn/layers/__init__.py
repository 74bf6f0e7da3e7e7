"""The parts of models: modules with parameters, and the base class they share."""
