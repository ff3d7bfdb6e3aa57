"""Other tools' conventions for telling of model calls over OTLP, each read by an adapter."""
