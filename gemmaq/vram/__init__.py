"""How much memory a model takes: one memory model per engine, and Google's published figures."""
